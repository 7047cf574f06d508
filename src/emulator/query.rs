//! Query strings, read strictly: a parameter that the page does not name, one that stands twice
//! and one out of its range are errors, worded for the answer's `error` field.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The parameters of one request, each of them known to the page and given once.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Takes a query apart; refuses unknown and repeated parameters.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(format!("Unknown query parameter {name}."));
            }
            if parameters
                .insert(name.to_string(), value.into_owned())
                .is_some()
            {
                return Err(format!("Query parameter {name} is given twice."));
            }
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that must be there and not empty.
    pub fn required(&self, name: &str) -> Result<&str, String> {
        self.get(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("Query parameter {name} is required."))
    }

    /// A decimal number within `range`; plain digits only.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        Some(text)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(|| {
                let (low, high) = range.into_inner();
                format!("Query parameter {name} has to be a number in {low}…{high}.")
            })
    }

    /// The value of a parameter; refuses others than `values`.
    pub fn one_of(&self, name: &str, values: &[&str]) -> Result<Option<&str>, String> {
        match self.get(name) {
            Some(value) if !values.contains(&value) => Err(format!(
                "Query parameter {name} has to be one of {}.",
                values.join(", ")
            )),
            value => Ok(value),
        }
    }

    /// A number in the form of JavaScript's, zero or more.
    pub fn measure(&self, name: &str) -> Result<Option<f64>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && *number >= 0.0)
            .map(Some)
            .ok_or_else(|| format!("Query parameter {name} has to be a number."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert!(Query::parse("a=1&b=2", &["a", "b"]).is_ok());
        assert!(Query::parse("a=1&c=2", &["a", "b"]).is_err());
        assert!(Query::parse("a=1&a=1", &["a"]).is_err());
    }

    #[test]
    fn numbers_are_plain_digits_in_their_range() {
        let number =
            |text: &str| Query::parse(text, &["n"]).and_then(|query| query.number("n", 1..=50));
        assert_eq!(number("n=50"), Ok(Some(50)));
        assert_eq!(number(""), Ok(None));
        for bad in [
            "n=0",
            "n=51",
            "n=",
            "n=+1",
            "n=1.0",
            "n=-1",
            "n=99999999999999999999",
        ] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}

//! A service whose answers are noted: every call goes through unchanged, and [`Health`] is told
//! whether it was answered and what failed. So the file system and the uploads, which both call
//! services, need not.

use std::fmt::Display;
use std::sync::Arc;

use super::{Arrived, Asset, AssetId, Library, Provider, ProviderError, Service, Upload};
use crate::health::{Health, Label};

struct Observed {
    provider: Arc<dyn Provider>,
    health: Arc<Health>,
}

/// `provider`, with its answers told to `health`.
pub fn observe(provider: Arc<dyn Provider>, health: Arc<Health>) -> Arc<dyn Provider> {
    Arc::new(Observed { provider, health })
}

impl Observed {
    fn note<T>(
        &self,
        place: impl Display,
        answer: Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let service = self.service().name();
        match &answer {
            Err(ProviderError::Unsupported | ProviderError::LocalFile(_)) => {}
            // A no to one asset shows that the service is there and the account accepted.
            Ok(_) | Err(ProviderError::NotFound | ProviderError::Refused { .. }) => {
                self.health.answered(service);
            }
            Err(error) => self.health.unanswered(service, error),
        }
        match &answer {
            // What is absent is no trouble: that is what was asked.
            Ok(_) | Err(ProviderError::NotFound | ProviderError::Unsupported) => {}
            Err(error) => {
                let kind = error.kind();
                self.health.trouble(Label { service, kind }, &place, error);
            }
        }
        answer
    }
}

impl Provider for Observed {
    fn service(&self) -> Service {
        self.provider.service()
    }

    fn list(&self, library: Library) -> Result<Vec<Asset>, ProviderError> {
        self.note(
            format_args!("listing {library}"),
            self.provider.list(library),
        )
    }

    fn list_and_tell(
        &self,
        library: Library,
        arrived: &Arrived<'_>,
    ) -> Result<Vec<Asset>, ProviderError> {
        let listed = self.provider.list_and_tell(library, arrived);
        self.note(format_args!("listing {library}"), listed)
    }

    fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError> {
        let place = format_args!("asking for {} in {}", asset.id, asset.library);
        self.note(place, self.provider.refresh(asset))
    }

    fn refresh_with_others(&self, asset: &Asset) -> Result<(Asset, Vec<Asset>), ProviderError> {
        let place = format_args!("asking for {} in {}", asset.id, asset.library);
        self.note(place, self.provider.refresh_with_others(asset))
    }

    fn find(&self, id: &AssetId) -> Result<Asset, ProviderError> {
        let place = format_args!("asking for {}/{id}", self.service());
        self.note(place, self.provider.find(id))
    }

    fn upload(&self, upload: Upload<'_>) -> Result<Asset, ProviderError> {
        let (library, name) = (upload.library, upload.name);
        let place = format_args!("uploading {library}/{name}");
        self.note(place, self.provider.upload(upload))
    }

    fn delete(&self, asset: &Asset) -> Result<(), ProviderError> {
        let place = format_args!("deleting {} in {}", asset.id, asset.library);
        self.note(place, self.provider.delete(asset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::http::TransportError;

    /// Answers what it is told.
    struct Told(fn() -> ProviderError);

    impl Provider for Told {
        fn service(&self) -> Service {
            Service::Runflow
        }

        fn list(&self, _library: Library) -> Result<Vec<Asset>, ProviderError> {
            Err((self.0)())
        }

        fn refresh(&self, asset: &Asset) -> Result<Asset, ProviderError> {
            Ok(asset.clone())
        }
    }

    fn after(error: fn() -> ProviderError) -> crate::health::Record {
        let health = Health::new(Arc::new(SystemClock), str::to_string);
        let observed = observe(Arc::new(Told(error)), Arc::clone(&health));
        assert!(observed.list(Library::Runflow).is_err());
        health.record()
    }

    #[test]
    fn an_answer_that_failed_is_noted_with_its_kind_and_place() {
        let record = after(|| ProviderError::Unavailable {
            service: Service::Runflow,
            source: TransportError::Timeout {
                host: "api.example".to_string(),
            },
        });
        assert_eq!(record.contacts["runflow"].reachable, Some(false));
        assert_eq!(record.troubles[0].place, "listing runflow");
        let label = Label {
            service: "runflow",
            kind: "unavailable",
        };
        assert_eq!(record.counts[&label], 1);
    }

    #[test]
    fn what_a_service_has_not_shows_that_it_answers() {
        let record = after(|| ProviderError::NotFound);
        assert_eq!(record.contacts["runflow"].reachable, Some(true));
        assert!(record.troubles.is_empty());
    }

    #[test]
    fn what_a_service_cannot_do_says_nothing_of_it() {
        assert_eq!(after(|| ProviderError::Unsupported), Default::default());
    }
}

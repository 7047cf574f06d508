use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A home directory, an environment and flags to resolve.
struct World {
    home: tempfile::TempDir,
    environment: HashMap<String, OsString>,
    flags: Settings,
}

impl World {
    fn empty() -> Self {
        let home = tempfile::tempdir().unwrap();
        let environment = HashMap::from([("HOME".to_string(), home.path().as_os_str().into())]);
        Self {
            home,
            environment,
            flags: Settings::default(),
        }
    }

    fn with_token() -> Self {
        Self::empty().env("USEAPI_TOKEN", "user:1-s3cret")
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_string(), value.into());
        self
    }

    fn flag(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(&mut self.flags);
        self
    }

    fn file(self, text: &str, mode: u32) -> Self {
        let path = self.home.path().join(".config/reelfs/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn resolve(&self) -> Result<Config, ConfigError> {
        self.resolve_for(Purpose::Accounts)
    }

    fn resolve_for(&self, purpose: Purpose) -> Result<Config, ConfigError> {
        let environment = |name: &str| self.environment.get(name).cloned();
        Config::resolve(&self.flags, &environment, purpose)
    }

    fn error(&self) -> String {
        self.resolve().unwrap_err().to_string()
    }
}

#[test]
fn a_token_alone_gives_the_defaults() {
    let world = World::with_token();
    let config = world.resolve().unwrap();
    assert_eq!(config.useapi_url.as_str(), "https://api.useapi.net/");
    assert_eq!(config.runflow_url.as_str(), "https://api.runflow.io/");
    assert_eq!(config.cache_size_bytes, 128 * 1024 * 1024);
    assert_eq!(config.listing_ttl, Duration::from_secs(30));
    assert_eq!(config.deadline, Duration::from_secs(30));
    assert_eq!(config.unmount_timeout, Duration::from_secs(600));
    assert!(!(config.write_back || config.allow_other || config.read_only || config.allow_delete));
    assert_eq!(
        config.state_dir,
        world.home.path().join(".local/state/reelfs")
    );
    assert!(config.runflow_token.is_none() && config.thumbnail_dir.is_none());
}

#[test]
fn a_flag_beats_the_variable_which_beats_the_file_which_beats_the_default() {
    let ttl = |world: World| world.resolve().unwrap().listing_ttl.as_secs();
    let file = || World::with_token().file("listing_ttl = \"3s\"", 0o644);
    let variable = || file().env("REELFS_LISTING_TTL", "2s");
    assert_eq!(ttl(World::with_token()), 30);
    assert_eq!(ttl(file()), 3);
    assert_eq!(ttl(variable()), 2);
    assert_eq!(
        ttl(variable().flag(|f| f.listing_ttl = Some("1s".into()))),
        1
    );
}

#[test]
fn every_setting_is_read_from_its_variable() {
    let config = World::with_token()
        .env("RUNFLOW_TOKEN", "rf-1")
        .env("RUNWAY_EMAIL", "a@b.c")
        .env("LTX_EMAIL", "d@e.f")
        .env("RUNFLOW_ORGANIZATION_ID", "org")
        .env("REELFS_USEAPI_URL", "http://127.0.0.1:1/u")
        .env("REELFS_RUNFLOW_URL", "http://127.0.0.1:2/r")
        .env("REELFS_CACHE_SIZE", "1G")
        .env("REELFS_LISTING_TTL", "0s")
        .env("REELFS_DEADLINE", "5s")
        .env("REELFS_UNMOUNT_TIMEOUT", "1m")
        .env("REELFS_WRITE_BACK", "1")
        .env("REELFS_ALLOW_OTHER", "yes")
        .env("REELFS_READ_ONLY", "true")
        .env("REELFS_ALLOW_DELETE", "on")
        .env("REELFS_THUMBNAILS", "1")
        .env("XDG_CACHE_HOME", "/cache")
        .env("REELFS_UID", "1234")
        .env("REELFS_GID", "root")
        .env("REELFS_UMASK", "027")
        .env("REELFS_NOEXEC", "1")
        .env("REELFS_STATE_DIR", "/state")
        .resolve()
        .unwrap();
    assert_eq!(config.tokens().count(), 2);
    assert_eq!(config.runway_email.as_deref(), Some("a@b.c"));
    assert_eq!(config.ltx_email.as_deref(), Some("d@e.f"));
    assert_eq!(config.runflow_organization.as_deref(), Some("org"));
    assert_eq!(config.useapi_url.as_str(), "http://127.0.0.1:1/u");
    assert_eq!(config.runflow_url.as_str(), "http://127.0.0.1:2/r");
    assert_eq!(config.cache_size_bytes, 1 << 30);
    assert_eq!(config.listing_ttl, Duration::ZERO);
    assert_eq!(config.deadline, Duration::from_secs(5));
    assert_eq!(config.unmount_timeout, Duration::from_secs(60));
    assert!(config.write_back && config.allow_other && config.read_only && config.allow_delete);
    let thumbnails = config.thumbnail_dir.as_deref();
    assert_eq!(thumbnails, Some(Path::new("/cache/thumbnails")));
    assert_eq!((config.uid, config.gid), (Some(1234), Some(0)));
    assert_eq!((config.umask, config.noexec), (Some(0o027), true));
    assert_eq!(config.state_dir, Path::new("/state"));
}

#[test]
fn every_setting_is_read_from_the_file() {
    let world = World::empty();
    let cache = world.home.path().join(".cache/thumbnails");
    let config = world
        .file(
            "useapi_token = 'u'\nrunflow_token = 'r'\nrunway_email = 'a@b.c'\nltx_email = 'd@e.f'\n\
             runflow_organization = 'org'\nuseapi_url = 'http://h:1'\nrunflow_url = 'http://h:2'\n\
             cache_size = 16777216\nlisting_ttl = 7\ndeadline = '5s'\nunmount_timeout = '1m'\n\
             write_back = true\nallow_other = true\nread_only = true\nallow_delete = true\n\
             thumbnails = true\n\
             uid = 'root'\ngid = 1234\numask = '077'\nnoexec = true\nstate_dir = '/state'\n",
            0o600,
        )
        .resolve()
        .unwrap();
    assert_eq!(config.tokens().count(), 2);
    assert_eq!(config.runflow_organization.as_deref(), Some("org"));
    assert_eq!(config.useapi_url.as_str(), "http://h:1/");
    assert_eq!(config.cache_size_bytes, 16 << 20);
    assert_eq!(config.listing_ttl, Duration::from_secs(7));
    assert!(config.write_back && config.allow_other && config.read_only && config.allow_delete);
    assert_eq!(config.thumbnail_dir, Some(cache));
    assert_eq!((config.uid, config.gid), (Some(0), Some(1234)));
    assert_eq!((config.umask, config.noexec), (Some(0o077), true));
    assert_eq!(config.state_dir, Path::new("/state"));
}

#[test]
fn a_switch_can_be_turned_off_again_by_what_comes_first() {
    let on = || World::with_token().file("read_only = true", 0o644);
    assert!(on().resolve().unwrap().read_only);
    assert!(
        !on()
            .env("REELFS_READ_ONLY", "0")
            .resolve()
            .unwrap()
            .read_only
    );
    let flag = on().flag(|f| f.read_only = Some("false".into()));
    assert!(!flag.resolve().unwrap().read_only);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let world = World::with_token()
        .file("listing_ttl = \"3s\"", 0o644)
        .env("REELFS_LISTING_TTL", "")
        .env("RUNWAY_EMAIL", "  ")
        .env("REELFS_STATE_DIR", "")
        .env("REELFS_CONFIG", "")
        .env("XDG_STATE_HOME", "");
    let config = world.resolve().unwrap();
    assert_eq!(config.listing_ttl, Duration::from_secs(3));
    assert_eq!(config.runway_email, None);
    assert!(config.state_dir.starts_with(world.home.path()));
}

#[test]
fn no_token_at_all_names_both_variables_and_the_file() {
    let error = World::empty().env("USEAPI_TOKEN", "").error();
    for word in [
        "USEAPI_TOKEN",
        "RUNFLOW_TOKEN",
        "config.toml",
        "reelfs demo",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_file_that_others_can_read_is_refused_when_it_holds_a_token() {
    for mode in [0o640, 0o604, 0o644] {
        let error = World::empty().file("useapi_token = 's3cret'", mode).error();
        assert!(error.contains("chmod 600 /"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let private = World::empty().file("useapi_token = 's3cret'", 0o600);
    assert!(private.resolve().is_ok());
    let without_token = World::with_token().file("useapi_token = ''\nread_only = true", 0o644);
    assert!(without_token.resolve().unwrap().read_only);
}

#[test]
fn an_unknown_key_is_named_with_the_known_ones() {
    let error = World::with_token().file("cache_sise = 1", 0o600).error();
    assert!(error.contains("`cache_sise`"), "{error}");
    assert!(error.contains("cache_size") && error.contains("runflow_token"));
}

#[test]
fn a_syntax_error_names_the_line_and_shows_none_of_it() {
    let error = World::empty()
        .file("read_only = true\nuseapi_token = s3cret\n", 0o600)
        .error();
    assert!(error.contains("line 2"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn a_named_file_must_be_there() {
    let error = World::with_token()
        .env("REELFS_CONFIG", "/no/such.toml")
        .error();
    assert!(error.contains("/no/such.toml"), "{error}");
}

#[test]
fn wrong_values_are_usage_errors_that_name_their_source() {
    type Set = fn(&mut Settings, String);
    let cases: [(&str, Set, &[&str]); 7] = [
        (
            "--cache-size",
            |f, v| f.cache_size = Some(v),
            &["potato", "-1", "2T"],
        ),
        (
            "--listing-ttl",
            |f, v| f.listing_ttl = Some(v),
            &["soon", "-3s", "25h"],
        ),
        ("--deadline", |f, v| f.deadline = Some(v), &["0s", "2h"]),
        (
            "--unmount-timeout",
            |f, v| f.unmount_timeout = Some(v),
            &["2days"],
        ),
        ("--read-only", |f, v| f.read_only = Some(v), &["maybe"]),
        (
            "--runway-email",
            |f, v| f.runway_email = Some(v),
            &["me", "@", "a b@c"],
        ),
        (
            "--runflow-organization",
            |f, v| f.runflow_organization = Some(v),
            &["a b", "a\nb"],
        ),
    ];
    for (flag, set, values) in cases {
        for value in values {
            let world = World::with_token().flag(|f| set(f, value.to_string()));
            let error = world.resolve().unwrap_err();
            assert!(error.is_usage(), "{flag} {value}");
            assert!(error.to_string().starts_with(flag), "{error}");
        }
    }
}

#[test]
fn a_url_must_be_http_without_credentials_or_query() {
    for url in [
        "api.useapi.net",
        "ftp://api.useapi.net",
        "file:///etc/passwd",
        "https://me:s3cret@api.useapi.net",
        "https://api.useapi.net?s3cret=1",
        "https://api.useapi.net#s3cret",
        "https://",
    ] {
        let error = World::with_token().env("REELFS_USEAPI_URL", url).error();
        assert!(error.starts_with("REELFS_USEAPI_URL: "), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_token_that_a_header_cannot_carry_is_refused_without_being_shown() {
    let error = World::empty().env("USEAPI_TOKEN", "s3 cret").error();
    assert!(error.starts_with("USEAPI_TOKEN: "), "{error}");
    assert!(!error.contains("s3 cret"), "{error}");
}

#[test]
fn a_small_cache_is_raised_to_the_least_that_works() {
    let config = World::with_token().env("REELFS_CACHE_SIZE", "1M").resolve();
    assert_eq!(config.unwrap().cache_size_bytes, MIN_CACHE_SIZE_BYTES);
}

#[test]
fn debug_output_holds_no_token() {
    let config = World::with_token()
        .env("RUNFLOW_TOKEN", "rf-s3cret")
        .resolve();
    assert!(!format!("{config:?}").contains("s3cret"));
}

fn state_dir(world: World) -> PathBuf {
    let world = world.env("XDG_STATE_HOME", "/s");
    world.resolve().unwrap().state_dir_for_mount()
}

#[test]
fn two_accounts_or_hosts_never_share_a_state_directory() {
    let dirs = [
        state_dir(World::with_token()),
        state_dir(World::with_token().env("USEAPI_TOKEN", "user:2-other")),
        state_dir(World::with_token().env("USEAPI_TOKEN", "of-another-form")),
        state_dir(World::with_token().env("RUNWAY_EMAIL", "a@b.c")),
        state_dir(World::with_token().env("REELFS_USEAPI_URL", "http://h")),
        state_dir(World::empty().env("RUNFLOW_TOKEN", "rf-1")),
        state_dir(World::empty().env("RUNFLOW_TOKEN", "rf-2")),
        World::empty()
            .env("XDG_STATE_HOME", "/s")
            .resolve_for(Purpose::Demo)
            .unwrap()
            .state_dir_for_mount(),
    ];
    let distinct: std::collections::HashSet<_> = dirs.iter().collect();
    assert_eq!(distinct.len(), dirs.len(), "{dirs:?}");
    assert!(dirs.iter().all(|dir| dir.starts_with("/s/reelfs")));
    assert!(!dirs[0].to_string_lossy().contains("s3cret"));
}

#[test]
fn staged_uploads_are_found_again_under_a_renewed_token_and_other_settings() {
    let renewed = |token| state_dir(World::empty().env("USEAPI_TOKEN", token));
    assert_eq!(renewed("user:7-old"), renewed("user:7-new"));
    let before = state_dir(World::with_token());
    assert_eq!(
        before,
        state_dir(World::with_token().env("LTX_EMAIL", "a@b.c"))
    );
    assert_eq!(
        before,
        state_dir(World::with_token().env("RUNFLOW_TOKEN", "rf"))
    );
}

#[test]
fn the_demo_does_not_look_at_accounts() {
    let config = World::with_token()
        .env("REELFS_USEAPI_URL", "http://elsewhere")
        .env("RUNWAY_EMAIL", "a@b.c")
        .env("REELFS_CACHE_SIZE", "16M")
        .resolve_for(Purpose::Demo)
        .unwrap();
    assert_eq!(config.tokens().count(), 0);
    assert_eq!(config.runway_email, None);
    assert_eq!(config.useapi_url.as_str(), "https://api.useapi.net/");
    assert_eq!(config.cache_size_bytes, 16 << 20);
}

#[test]
fn an_account_or_umask_that_cannot_be_is_named() {
    let error = |name: &str, value: &str| World::with_token().env(name, value).error();
    for account in ["no-such-account", "-1", "4294967295"] {
        assert!(error("REELFS_UID", account).contains(account));
        assert!(error("REELFS_GID", account).contains(account));
    }
    for umask in ["9", "1777", "u=rwx", "-1", "+7"] {
        assert!(error("REELFS_UMASK", umask).contains("octal"), "{umask}");
    }
    // TOML would take 0o077 for 63 and 77 for 77.
    let number = World::with_token().file("umask = 0o077", 0o600);
    assert!(number.error().contains("as a string"), "{}", number.error());
}

#[test]
fn the_help_names_the_variable_of_every_setting() {
    use clap::CommandFactory;
    let mut cli = crate::cli::Cli::command();
    let help = cli
        .find_subcommand_mut("mount")
        .unwrap()
        .render_long_help()
        .to_string();
    for key in source::Key::ALL {
        assert!(help.contains(key.variable()), "{}", key.variable());
        assert_eq!(
            !key.is_token(),
            help.contains(&format!("{} ", key.flag()))
                || help.contains(&format!("{}[", key.flag())),
            "{}",
            key.flag()
        );
    }
}

#[test]
fn unmounting_finds_the_state_directory_even_with_a_file_that_is_refused() {
    let world = World::empty().file("nonsense =", 0o644);
    let environment = |name: &str| world.environment.get(name).cloned();
    let dir = state_dir_for_unmount(None, &environment).unwrap();
    assert_eq!(dir, world.home.path().join(".local/state/reelfs"));
}

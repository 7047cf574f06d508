//! Random operations of programs on a real mount against a plain model in memory: what `read`, `stat`,
//! `mmap` and `ls` say is at every step what the model says, while assets come, change and vanish at
//! the service, requests fail, URLs expire, the cache holds a fraction of the bytes and the program
//! is mounted anew or killed in between. See `cases` for how to repeat a run.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reelfs::clock::ManualClock;
use reelfs::emulator::{Content, Effect, EmulatorConfig, Fault, HostKind, RunwayAsset};

use crate::cases::{self, Case, Dice, Story};
use crate::families::{Families, NAMES, TEMPORARY, Version, is_older};
use crate::support::{Studio, errno, names, noise, until};

const STEPS: u64 = 250;
/// A whole look at every file after so many steps.
const CHECK_EVERY: usize = 30;
/// Around what the reader and the kernel move at once, and together more than the cache holds.
const SIZES: [u64; 9] = [
    0, 1, 4_095, 4_097, 70_000, 524_289, 1_048_577, 2_000_000, 3_100_000,
];
/// Assets of one name; more are removed at the service.
const MOST_VERSIONS: usize = 3;
const MOST_READERS: usize = 4;
const URL_LIFETIME: Duration = Duration::from_secs(600);
const EXDEV: i32 = 18;
const ENOENT: i32 = 2;
/// Maps whole files, because the crate has no unsafe code to do it with.
const MAPPER: &str = "
import mmap, os, sys
for path in sys.stdin:
    with open(path.rstrip('\\n'), 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        data = bytes(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)) if size else b''
    sys.stdout.buffer.write(len(data).to_bytes(8, 'little') + data)
    sys.stdout.buffer.flush()
";

struct Writer {
    file: File,
    append: bool,
    bytes: Vec<u8>,
    changed: bool,
}

struct Reader {
    file: File,
    name: String,
    version: Version,
}

struct Mapper(Child);

impl Mapper {
    fn start() -> Self {
        let child = Command::new("python3")
            .args(["-c", MAPPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("python3 is missing: apt-get install python3"))
    }

    fn map(&mut self, path: PathBuf) -> Vec<u8> {
        let (asks, says) = (self.0.stdin.as_mut(), self.0.stdout.as_mut());
        let (asks, says) = (asks.unwrap(), says.unwrap());
        writeln!(asks, "{}", path.display()).unwrap();
        let mut length = [0; 8];
        says.read_exact(&mut length)
            .expect("the file can be mapped");
        let mut data = vec![0; u64::from_le_bytes(length) as usize];
        says.read_exact(&mut data).unwrap();
        data
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Model<'a> {
    seed: u64,
    dice: Dice,
    clock: Arc<ManualClock>,
    // Before the studio, so that their files are closed when it unmounts.
    writers: BTreeMap<String, Writer>,
    readers: Vec<Reader>,
    mapper: Mapper,
    studio: Studio,
    families: Families,
    made: u64,
    story: &'a Story,
}

impl<'a> Model<'a> {
    fn new(seed: u64, story: &'a Story) -> Self {
        let clock = Arc::new(ManualClock::at(SystemTime::now()));
        let studio = Studio::unmounted(EmulatorConfig {
            clock: clock.clone(),
            url_lifetime: URL_LIFETIME,
            ..EmulatorConfig::default()
        });
        // The deadline is long: on a loaded machine a listing must be late rather than an error.
        studio.mount_with(&[
            "--allow-delete",
            "--listing-ttl=0s",
            "--cache-size=8M",
            "--deadline=120s",
        ]);
        Self {
            seed,
            dice: Dice::of(seed, 0),
            clock,
            writers: BTreeMap::new(),
            readers: Vec::new(),
            mapper: Mapper::start(),
            studio,
            families: Families::default(),
            made: 0,
            story,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.studio.at("runway/video").join(name)
    }

    fn note(&self, step: String) {
        self.story.note(step);
    }

    fn any_name(&mut self) -> String {
        match self.dice.below(3) {
            0 => self.dice.among(&TEMPORARY).to_string(),
            _ => self.dice.among(&NAMES).to_string(),
        }
    }

    /// Few values, so that the same bytes come again.
    fn bytes(&mut self) -> Vec<u8> {
        let size_bytes = self.dice.among(&SIZES);
        let seed = self.dice.below(2) as u64;
        noise(size_bytes, seed)
    }

    fn step(&mut self, number: u64) {
        self.dice = Dice::of(self.seed, number);
        // Assets made one after the other are told apart by their times.
        self.clock.advance(Duration::from_secs(1));
        let name = self.any_name();
        match self.dice.below(25) {
            0..=2 => self.copy_over(&name),
            3 => self.create(&name),
            4 => self.open_to_write(&name),
            5 | 6 => self.write(&name),
            7 => self.truncate(&name),
            8 | 9 => self.close(&name),
            10 => self.rename(&name),
            11 => self.unlink(&name),
            12 | 13 => self.change_at_service(),
            14 => self.open_to_read(&name),
            15..=17 => self.read(),
            18 => self.look(&name),
            19 | 20 => self.map(&name),
            21 => self.expire_urls(),
            22 => self.let_requests_fail(),
            23 => self.list(),
            _ if self.dice.below(3) > 0 => self.list(),
            _ => self.remount(),
        }
    }

    // ---- writing ----

    fn copy_over(&mut self, name: &str) {
        if self.writers.contains_key(name) {
            return self.close(name);
        }
        let bytes = self.bytes();
        self.note(format!("copy {} bytes to {name}", bytes.len()));
        let source = self.studio.make("source", &bytes);
        fs::copy(source, self.at(name)).unwrap();
        self.families.put(name, Arc::new(bytes));
        self.arrive(name);
    }

    fn create(&mut self, name: &str) {
        if self.writers.contains_key(name) {
            return self.close(name);
        }
        self.note(format!("create {name}"));
        let file = File::create(self.at(name)).unwrap();
        self.families.put(name, Arc::default());
        let writer = Writer {
            file,
            append: false,
            bytes: Vec::new(),
            changed: true,
        };
        self.writers.insert(name.to_string(), writer);
        self.write(name);
    }

    fn open_to_write(&mut self, name: &str) {
        if self.writers.contains_key(name) {
            return;
        }
        let append = self.dice.below(2) == 0;
        let mut how = OpenOptions::new();
        how.read(true).write(true).append(append);
        self.note(format!("open {name} to write, append: {append}"));
        let opened = how.open(self.at(name));
        let Some(bytes) = self.families.shown(name) else {
            return assert_eq!(errno(opened), ENOENT, "{name}");
        };
        let writer = Writer {
            file: opened.unwrap(),
            append,
            bytes: bytes.to_vec(),
            changed: false,
        };
        self.writers.insert(name.to_string(), writer);
    }

    fn write(&mut self, name: &str) {
        let Some(most) = self.writers.get(name).map(|writer| writer.bytes.len()) else {
            return;
        };
        let (data, offset) = (self.bytes(), self.dice.below(most + 5_000));
        if data.is_empty() {
            return;
        }
        self.note(format!("write {} bytes at {offset} of {name}", data.len()));
        let writer = self.writers.get_mut(name).unwrap();
        let at = match writer.append {
            true => writer.bytes.len(),
            false => offset,
        };
        match writer.append {
            true => writer.file.write_all(&data).unwrap(),
            false => writer.file.write_all_at(&data, at as u64).unwrap(),
        }
        let end = at + data.len();
        writer.bytes.resize(writer.bytes.len().max(end), 0);
        writer.bytes[at..end].copy_from_slice(&data);
        self.wrote(name);
    }

    fn truncate(&mut self, name: &str) {
        let Some(most) = self.writers.get(name).map(|writer| writer.bytes.len()) else {
            return;
        };
        let size = self.dice.below(most + 5_000);
        self.note(format!("truncate {name} to {size}"));
        let writer = self.writers.get_mut(name).unwrap();
        writer.file.set_len(size as u64).unwrap();
        writer.bytes.resize(size, 0);
        self.wrote(name);
    }

    /// What is written shows under the name, and to the writer.
    fn wrote(&mut self, name: &str) {
        let writer = self.writers.get_mut(name).unwrap();
        writer.changed = true;
        let length = writer.file.metadata().unwrap().len();
        assert_eq!(length, writer.bytes.len() as u64, "{name} while written");
        let bytes = Arc::new(writer.bytes.clone());
        self.families.put(name, bytes);
    }

    fn close(&mut self, name: &str) {
        let Some(mut writer) = self.writers.remove(name) else {
            return;
        };
        self.note(format!("close {name}, changed: {}", writer.changed));
        let mut read = vec![0; writer.bytes.len()];
        writer.file.read_exact_at(&mut read, 0).ok();
        if writer.append || !writer.changed {
            assert!(read == writer.bytes, "{name} by its writer");
        }
        writer.file.flush().unwrap();
        drop(writer.file);
        if writer.changed {
            self.arrive(name);
        }
    }

    /// What was closed whole under a real name, and isn't empty, is an asset now.
    fn arrive(&mut self, name: &str) {
        let Some(bytes) = self.families.sends(name) else {
            return;
        };
        let newest = || self.studio.services.runway_assets().into_iter().next();
        until("the upload arrives", || {
            newest().is_some_and(|asset| {
                asset.name.as_deref() == Some(name) && asset.content.verify(0, &bytes)
            })
        });
        let id = newest().unwrap().id;
        self.families.add(name, id, bytes, true);
        // From here on a listing without it means that it was removed at the service.
        names(&self.studio.at("runway/video"));
    }

    fn rename(&mut self, from: &str) {
        let to = self.any_name();
        let open = |name: &str| self.writers.contains_key(name);
        if open(from) || open(&to) || to == from {
            return;
        }
        self.note(format!("rename {from} to {to}"));
        let renamed = fs::rename(self.at(from), self.at(&to));
        let Some(family) = self.families.get(from) else {
            return assert_eq!(errno(renamed), ENOENT, "{from}");
        };
        let Some(bytes) = family.local.clone() else {
            let expected = if family.assets.is_empty() {
                ENOENT
            } else {
                EXDEV
            };
            return assert_eq!(errno(renamed), expected, "{from}");
        };
        renamed.unwrap();
        self.families.of(from).local = None;
        self.families.put(&to, bytes);
        self.arrive(&to);
    }

    fn unlink(&mut self, name: &str) {
        if self.writers.contains_key(name) {
            return;
        }
        self.note(format!("unlink {name}"));
        let removed = fs::remove_file(self.at(name));
        match self.families.of(name).remove_shown() {
            true => removed.unwrap(),
            false => assert_eq!(errno(removed), ENOENT, "{name}"),
        }
    }

    // ---- reading ----

    fn open_to_read(&mut self, name: &str) {
        if self.writers.contains_key(name) || self.readers.len() >= MOST_READERS {
            self.readers.pop();
            return;
        }
        // A file on this machine is written in place, before its readers' eyes.
        let family = self.families.get(name).filter(|f| f.local.is_none());
        let Some(version) = family.and_then(|family| family.assets.last()) else {
            return;
        };
        let version = version.clone();
        self.note(format!("open {name} to read"));
        let (file, name) = (File::open(self.at(name)).unwrap(), name.to_string());
        let reader = Reader {
            file,
            name,
            version,
        };
        self.readers.push(reader);
    }

    /// Some bytes by a descriptor that was opened before: those of then, or an error.
    fn read(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let which = self.dice.below(self.readers.len());
        let length = self.readers[which].version.bytes.len();
        let offset = self.dice.below(length + 10);
        let wanted = self.dice.among(&[1, 4_096, 100_000, 1_500_000]);
        let reader = &self.readers[which];
        self.note(format!("read {wanted} at {offset} of {}", reader.name));
        let expected = &reader.version.bytes[offset.min(length)..(offset + wanted).min(length)];
        match read_all_at(&reader.file, wanted, offset) {
            Ok(read) => {
                let name = &reader.name;
                assert!(read == expected, "{name}: {} bytes at {offset}", read.len());
            }
            Err(error) => {
                let is_there = self.families.has(&reader.name, &reader.version);
                assert!(!is_there, "{}: {error}", reader.name);
                self.readers.swap_remove(which);
            }
        }
    }

    fn look(&mut self, name: &str) {
        if self.writers.contains_key(name) {
            return;
        }
        self.note(format!("look at {name}"));
        match self.families.shown(name) {
            Some(bytes) => self.is(name, &bytes),
            None => assert_eq!(errno(fs::metadata(self.at(name))), ENOENT, "{name}"),
        }
    }

    fn is(&self, name: &str, bytes: &[u8]) {
        // Until the kernel lets go of the writer, a moment after its close, the number of the asset
        // that was written over shows the writer, which is this process, what it wrote.
        if name.contains(" (") {
            let size = || fs::metadata(self.at(name)).unwrap().len();
            until("an older version has its size", || {
                size() == bytes.len() as u64
            });
        }
        let length = fs::metadata(self.at(name)).unwrap().len();
        assert_eq!(length, bytes.len() as u64, "the size of {name}");
        let read = fs::read(self.at(name)).unwrap();
        assert!(read == bytes, "the bytes of {name}, {} of them", read.len());
    }

    fn map(&mut self, name: &str) {
        let shown = self.families.shown(name);
        if let Some(bytes) = shown.filter(|_| !self.writers.contains_key(name)) {
            self.note(format!("map {name}"));
            let path = self.at(name);
            let mapped = self.mapper.map(path);
            assert!(
                mapped == **bytes,
                "the pages of {name}, {} bytes",
                mapped.len()
            );
        }
    }

    fn list(&self) {
        self.note("list".to_string());
        let shown: Vec<String> = self.families.expected().into_keys().collect();
        assert_eq!(names(&self.studio.at("runway/video")), shown);
    }

    fn check(&self) {
        self.list();
        for (name, bytes) in self.families.expected() {
            let is_open = |open: &String| *open == name || is_older(&name, open);
            if !self.writers.keys().any(is_open) {
                self.is(&name, &bytes);
            }
        }
    }

    // ---- what others do ----

    fn change_at_service(&mut self) {
        let name = self.dice.among(&NAMES);
        if self.writers.contains_key(name) {
            return;
        }
        let versions = self.families.of(name).assets.len();
        let which = self.dice.below(versions);
        let action = match versions {
            0 => 0,
            MOST_VERSIONS.. => 1,
            _ => self.dice.below(3),
        };
        self.made += 1;
        let size_bytes = self.dice.among(&SIZES[1..]) + self.made;
        let bytes = Arc::new(noise(size_bytes, self.made));
        let content = Content::synthetic(size_bytes, self.made);
        match action {
            0 => {
                let asset = RunwayAsset::named(name, content);
                let id = self.studio.services.add_runway(asset);
                self.note(format!("{name} ({}) appears", &id[..8]));
                self.families.add(name, id, bytes, false);
            }
            1 => {
                let gone = self.families.of(name).assets.remove(which);
                self.note(format!("{name} ({}) vanishes", &gone.id[..8]));
                assert!(self.studio.services.remove(&gone.id));
            }
            _ => {
                let id = self.families.of(name).replace(which, bytes);
                self.note(format!("{name} ({}) gets {size_bytes} bytes", &id[..8]));
                assert!(self.studio.services.replace_content(&id, content));
            }
        }
    }

    fn expire_urls(&self) {
        self.note("the URLs expire".to_string());
        self.clock.advance(URL_LIFETIME * 2);
    }

    /// The next requests fail in a way that is retried.
    fn let_requests_fail(&mut self) {
        let host = self.dice.among(&[HostKind::Useapi, HostKind::Asset]);
        let effect = match self.dice.below(4) {
            0 => Effect::status(503),
            1 => Effect::html(502),
            2 => Effect::DropBeforeAnswer,
            _ => Effect::status(500),
        };
        self.note(format!("two requests to {host:?}: {effect:?}"));
        // Only what is asked, not what is sent: an upload's answer that is lost has its own tests.
        let fault = Fault::at(host).method("GET").times(2);
        self.studio.services.add_fault(fault.does(effect));
    }

    fn remount(&mut self) {
        let open: Vec<String> = self.writers.keys().cloned().collect();
        for name in open {
            self.close(&name);
        }
        self.readers.clear();
        let killed = self.dice.below(2) == 0;
        self.note(format!("remount, killed: {killed}"));
        match killed {
            true => {
                self.studio.kill();
                self.studio.mount();
            }
            false => self.studio.remount(),
        }
    }
}

fn read_all_at(file: &File, wanted: usize, offset: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut read[filled..], (offset + filled) as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    read.truncate(filled);
    Ok(read)
}

fn run(case: &Case, story: &Story) {
    let mut model = Model::new(case.seed, story);
    for (count, step) in case.steps.iter().enumerate() {
        model.step(*step);
        if (count + 1) % CHECK_EVERY == 0 {
            model.check();
        }
    }
    model.remount();
    model.check();
}

#[test]
fn random_operations_on_a_mount_do_what_a_plain_model_does() {
    cases::check(include_str!("model.cases"), STEPS, run);
}

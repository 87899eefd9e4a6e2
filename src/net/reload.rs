//! TLS configurations that follow their certificate files.
//!
//! Files are read by a thread that may block, so that a slow or hung mount delays nothing but the renewal itself.

use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;

use super::tls::{Ends, client_config};
use crate::settings::Tls;

/// How long a new connection waits for the check of the files.
const CHECK_TIMEOUT: Duration = Duration::from_millis(100);

/// One configuration for each protocol that TLS can agree on (ALPN).
#[derive(Debug, Clone)]
pub(super) struct Configs {
    pub http1: Arc<ClientConfig>,
    pub http2: Arc<ClientConfig>,
    /// How many times certificates have been read.
    pub generation: u32,
    pub ends: Ends,
}

/// The current configurations, and what they were made from.
pub(super) struct ReloadingTls {
    settings: Tls,
    current: Mutex<Configs>,
    /// Nobody holds this lock, or that of `current`, while waiting for a file.
    stamp: Mutex<Stamp>,
    /// A check of the files is under way.
    is_checking: AtomicBool,
    /// Somebody asked to read the files even if they look unchanged.
    is_reload_wanted: AtomicBool,
}

/// Of each file: modification time, size, inode.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl ReloadingTls {
    /// # Errors
    /// When the certificates cannot be used: the setting and the problem, in words.
    pub(super) fn new(settings: &Tls) -> Result<Self, String> {
        // The files may have changed since the settings were read, and may change again while they are read: whatever
        // comes after the stamp counts as a change.
        let stamp = stamp(settings);
        let current = load(&settings.read_again().unwrap_or_else(|_| settings.clone()), 1)?;
        let (current, stamp) = (Mutex::new(current), Mutex::new(stamp));
        let settings = settings.clone();
        Ok(Self {
            settings,
            current,
            stamp,
            is_checking: AtomicBool::default(),
            is_reload_wanted: AtomicBool::default(),
        })
    }

    pub(super) fn current(&self) -> Configs {
        lock(&self.current).clone()
    }

    /// Reads the files if they have changed, and waits for that only for a moment.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let Some(check) = self.begin_check() else { return };
        let check = tokio::task::spawn_blocking(|| check.run());
        let _ = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    }

    /// Reads the certificates again, even if their files look unchanged. Does not wait for that. If a check is under way,
    /// it does this at its end.
    pub(super) fn reload(self: &Arc<Self>) {
        self.is_reload_wanted.store(true, Ordering::SeqCst);
        let Some(check) = self.begin_check() else { return };
        // Without a thread, the check before the next connection does it.
        let _ = thread::Builder::new().name("certificates".to_owned()).spawn(|| check.run());
    }

    /// There is one check at a time, so that a hung mount holds one thread.
    fn begin_check(self: &Arc<Self>) -> Option<Check> {
        (!self.is_checking.swap(true, Ordering::SeqCst)).then(|| Check(Arc::clone(self)))
    }

    /// Certificates that cannot be used, as in the middle of a renewal, change nothing.
    fn read_if_changed(&self) {
        let new = stamp(&self.settings);
        let is_wanted = self.is_reload_wanted.swap(false, Ordering::SeqCst);
        let last = mem::replace(&mut *lock(&self.stamp), new.clone());
        if !is_wanted && last == new {
            return;
        }
        let generation = self.current().generation + 1;
        let read = self.settings.read_again().map_err(|err| err.to_string());
        match read.and_then(|settings| load(&settings, generation)) {
            Ok(configs) => {
                *lock(&self.current) = configs;
                log::info!("the certificates were read again: new connections use them");
            }
            Err(why) => log::warn!("the previous certificates stay in use: {why}"),
        }
    }
}

/// The right to check the files, as long as this lives.
struct Check(Arc<ReloadingTls>);

impl Check {
    /// Blocks as long as the files do. Checks again if a reload was asked for meanwhile.
    fn run(self) {
        let tls = Arc::clone(&self.0);
        let mut next = Some(self);
        while let Some(check) = next {
            tls.read_if_changed();
            drop(check);
            next = if tls.is_reload_wanted.load(Ordering::SeqCst) { tls.begin_check() } else { None };
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.0.is_checking.store(false, Ordering::SeqCst);
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(settings: &Tls, generation: u32) -> Result<Configs, String> {
    let http2 = client_config(settings)?;
    let mut http1 = http2.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Configs { http1: Arc::new(http1), http2: Arc::new(http2), generation, ends: Ends::of(settings) })
}

fn stamp(settings: &Tls) -> Stamp {
    let state = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    settings.files().map(state).collect()
}

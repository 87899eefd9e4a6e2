//! TLS configurations that follow their certificate files.
//!
//! Files are read by a thread that may block, so that a slow or hung mount delays nothing but the renewal itself.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;

use super::tls::client_config;
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
}

/// The current configurations, and what they were made from.
pub(super) struct ReloadingTls {
    settings: Tls,
    current: Mutex<Configs>,
    stamp: Mutex<Stamp>,
    /// A check of the files is under way.
    checking: AtomicBool,
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
        Ok(Self { settings: settings.clone(), current, stamp, checking: AtomicBool::new(false) })
    }

    pub(super) fn current(&self) -> Configs {
        lock(&self.current).clone()
    }

    /// Reads the files if they have changed, and waits for that only for a moment. There is one check at a time.
    pub(super) async fn refresh(self: &Arc<Self>) {
        if self.checking.swap(true, Ordering::Acquire) {
            return;
        }
        let this = Arc::clone(self);
        let check = tokio::task::spawn_blocking(move || {
            let is_changed = *lock(&this.stamp) != stamp(&this.settings);
            if is_changed {
                this.reload();
            }
            this.checking.store(false, Ordering::Release);
        });
        let _ = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    }

    /// Reads the certificates again. Certificates that cannot be used, as in the middle of a renewal, change nothing.
    pub(super) fn reload(&self) {
        let mut last = lock(&self.stamp);
        *last = stamp(&self.settings);
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

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(settings: &Tls, generation: u32) -> Result<Configs, String> {
    let http2 = client_config(settings)?;
    let mut http1 = http2.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Configs { http1: Arc::new(http1), http2: Arc::new(http2), generation })
}

fn stamp(settings: &Tls) -> Stamp {
    let state = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    settings.files().map(state).collect()
}

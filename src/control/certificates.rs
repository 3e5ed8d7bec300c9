//! Certificates that were checked: a member shows the same one in every roster and handshake.

use std::collections::BTreeMap;

use crate::wire::DecodeError;
use crate::wire::certificate::Certificate;

/// Certificates kept: one for each of so many members.
const CAPACITY: usize = 8192;

/// Certificates whose signature was checked, by their bytes. Checking one costs 26 us, finding it one.
#[derive(Debug, Default)]
pub(super) struct Certificates(BTreeMap<Vec<u8>, Certificate>);

impl Certificates {
    /// As [`Certificate::parse`].
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<Certificate, DecodeError> {
        if let Some(known) = self.0.get(bytes) {
            return Ok(known.clone());
        }
        let certificate = Certificate::parse(bytes)?;
        if self.0.len() >= CAPACITY {
            // Only members can fill it, and a full check again is all that it costs.
            self.0.pop_first();
        }
        self.0.insert(bytes.to_vec(), certificate.clone());
        Ok(certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Identity, OverlayKey, OverlaySecrets};

    #[test]
    fn only_what_holds_is_known_and_never_more_than_there_is_room_for() {
        let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([1; 32]));
        let issued = Certificate::issue(&secrets, &Identity::from_secret(&[2; 32]));
        let mut certificates = Certificates::default();
        assert_eq!(certificates.check(issued.bytes()), Ok(issued.clone()));
        assert_eq!(certificates.check(issued.bytes()), Ok(issued.clone()));
        let mut bent = issued.bytes().to_vec();
        bent[189] ^= 1;
        assert_eq!(certificates.check(&bent), Err(DecodeError::Forged));
        assert_eq!(certificates.0.len(), 1);
    }
}

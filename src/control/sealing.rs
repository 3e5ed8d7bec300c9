//! Sealing under keys that every member of an overlay has: directory entries, announcements, loop probes.
//!
//! Frames have keys of their own for each pair of members (`datapath/seal`).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::wire::{DecodeError, NONCE_LEN};

/// Seals `text` and binds it to `clear`, which travels beside it. No nonce may come twice.
pub(super) fn seal(secret: &[u8; 32], nonce: [u8; NONCE_LEN], clear: &[u8], mut text: Vec<u8>) -> Vec<u8> {
    key(secret)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(clear), &mut text)
        .expect("a message is far shorter than what a cipher takes");
    text
}

/// Opens what [`seal`] made.
pub(super) fn open(
    secret: &[u8; 32],
    nonce: [u8; NONCE_LEN],
    clear: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, DecodeError> {
    let mut text = sealed.to_vec();
    let plain = key(secret)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(clear), &mut text)
        .map_err(|_| DecodeError::Forged)?;
    let len = plain.len();
    text.truncate(len);
    Ok(text)
}

fn key(secret: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, secret).expect("the key is 32 bytes long"))
}

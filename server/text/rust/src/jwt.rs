//! JSON Web Tokens (RFC 7519): the public keys of whoever issues them, a JWK set (RFC 7517), and
//! whom a token names that one of the keys signed. rpc/jwt_interface.h is the C interface;
//! everything that is cryptography is the crate jsonwebtoken's.

use std::ops::RangeInclusive;
use std::slice;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{decode, decode_header, Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::budget::catch_panic;

const MOST_KEYS: usize = 64;
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Why a token names nobody.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(i32)]
enum Fault {
    NoToken = 1,
    UnknownKey = 2,
    BadSignature = 3,
    // What its issuer said, so the signature holds.
    Expired = 4,
    NotYet = 5,
    OtherIssuer = 6,
    OtherAudience = 7,
    MissingClaim = 8,
    Internal = 9,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

pub struct JwtKeys {
    keys: Vec<Key>,
}

struct Demands<'a> {
    issuer: &'a str,
    audience: &'a str,
    leeway: u64,
}

/// With these a key of this kind may sign; none where tokens are not signed with such keys.
fn algorithms_of(jwk: &Jwk) -> Vec<Algorithm> {
    let of_its_kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => vec![],
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        _ => vec![],
    };
    match jwk.common.key_algorithm {
        None => of_its_kind,
        Some(only) => of_its_kind.into_iter().filter(|a| KeyAlgorithm::from(*a) == only).collect(),
    }
}

/// None for a key that is there for something else, which a set may have.
fn read_key(value: &Value) -> Result<Option<Key>, String> {
    let Some(members) = value.as_object() else { return Err("is no object".into()) };
    let kind = members.get("kty").and_then(Value::as_str);
    if kind == Some("oct") || members.contains_key("d") {
        return Err("is a secret key: only public keys belong here".into());
    }
    let Ok(jwk) = serde_json::from_value::<Jwk>(value.clone()) else { return Ok(None) };
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let algorithms = algorithms_of(&jwk);
    if !signs || algorithms.is_empty() {
        return Ok(None);
    }
    if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm {
        let bits = rsa.n.trim_end_matches('=').len() * 6 / 8 * 8;
        if !RSA_BITS.contains(&bits) {
            return Err(format!("has {bits} bits, and RSA keys must have 2048 to 8192"));
        }
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "is not readable".to_string())?;
    Ok(Some(Key { id: jwk.common.key_id, algorithms, key }))
}

fn parse(text: &[u8]) -> Result<JwtKeys, String> {
    let set: Value = serde_json::from_slice(text).map_err(|e| format!("is no JSON: {e}"))?;
    let Some(listed) = set.get("keys").and_then(Value::as_array) else {
        return Err("must be a JWK set, an object with the list keys".into());
    };
    if listed.len() > MOST_KEYS {
        return Err(format!("has {} keys, and may have {MOST_KEYS}", listed.len()));
    }
    let mut keys = vec![];
    for (index, value) in listed.iter().enumerate() {
        keys.extend(read_key(value).map_err(|fault| format!("keys[{index}] {fault}"))?);
    }
    if keys.is_empty() {
        return Err("has no key for signatures: RSA, EC P-256 or P-384, or Ed25519".into());
    }
    Ok(JwtKeys { keys })
}

fn fault_of(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::ExpiredSignature => Fault::Expired,
        ErrorKind::ImmatureSignature => Fault::NotYet,
        ErrorKind::InvalidIssuer => Fault::OtherIssuer,
        ErrorKind::InvalidAudience => Fault::OtherAudience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            Fault::MissingClaim
        }
        ErrorKind::InvalidSignature => Fault::BadSignature,
        _ => Fault::NoToken,
    }
}

/// The token's subject.
fn verify(keys: &JwtKeys, token: &[u8], demands: &Demands) -> Result<String, Fault> {
    let header = decode_header(token).map_err(|_| Fault::NoToken)?;
    let mut validation = Validation::new(header.alg);
    validation.leeway = demands.leeway;
    validation.validate_nbf = true;
    validation.set_issuer(&[demands.issuer]);
    validation.set_audience(&[demands.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let mut fault = Fault::UnknownKey;
    for key in &keys.keys {
        if !key.algorithms.contains(&header.alg) || (header.kid.is_some() && header.kid != key.id) {
            continue;
        }
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(data) => {
                // The crate takes a list of issuers as well, which RFC 7519 does not know.
                if data.claims.get("iss").and_then(Value::as_str) != Some(demands.issuer) {
                    return Err(Fault::OtherIssuer);
                }
                let subject = data.claims.get("sub").and_then(Value::as_str);
                let named = subject.filter(|text| !text.is_empty());
                return named.map(String::from).ok_or(Fault::MissingClaim);
            }
            Err(error) => fault = fault_of(error.kind()),
        }
        if fault != Fault::BadSignature {
            break;
        }
    }
    Err(fault)
}

/// # Safety
/// `data` points to `size` bytes.
unsafe fn borrow<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        &[]
    } else {
        slice::from_raw_parts(data, size)
    }
}

/// As much of `text` as there is room for.
///
/// # Safety
/// `place` has room for `room` bytes; `size` is writable.
unsafe fn hand_over(text: &str, place: *mut u8, room: usize, size: *mut usize) {
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    slice::from_raw_parts_mut(place, end).copy_from_slice(&text.as_bytes()[..end]);
    *size = end;
}

/// # Safety
/// As in jwt_interface.h.
#[no_mangle]
pub unsafe extern "C" fn vs_jwt_keys_parse(
    text: *const u8,
    size: usize,
    error: *mut u8,
    error_room: usize,
    error_size: *mut usize,
) -> *mut JwtKeys {
    let parsed = catch_panic(|| parse(borrow(text, size)));
    match parsed.unwrap_or_else(|failure| Err(failure.text)) {
        Ok(keys) => Box::into_raw(Box::new(keys)),
        Err(fault) => {
            hand_over(&fault, error, error_room, error_size);
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// `keys` came from vs_jwt_keys_parse and is not used again.
#[no_mangle]
pub unsafe extern "C" fn vs_jwt_keys_free(keys: *mut JwtKeys) {
    drop(Box::from_raw(keys));
}

/// # Safety
/// As in jwt_interface.h.
#[no_mangle]
pub unsafe extern "C" fn vs_jwt_verify(
    keys: *const JwtKeys,
    token: *const u8,
    token_size: usize,
    issuer: *const u8,
    issuer_size: usize,
    audience: *const u8,
    audience_size: usize,
    leeway: u64,
    subject: *mut u8,
    subject_room: usize,
    subject_size: *mut usize,
) -> i32 {
    let verified = catch_panic(|| {
        let (Ok(issuer), Ok(audience)) = (
            std::str::from_utf8(borrow(issuer, issuer_size)),
            std::str::from_utf8(borrow(audience, audience_size)),
        ) else {
            return Err(Fault::Internal);
        };
        verify(&*keys, borrow(token, token_size), &Demands { issuer, audience, leeway })
    });
    match verified.unwrap_or(Err(Fault::Internal)) {
        // A subject that does not fit is nobody's whom a file could name.
        Ok(named) if named.len() > subject_room => Fault::MissingClaim as i32,
        Ok(named) => {
            hand_over(&named, subject, subject_room, subject_size);
            0
        }
        Err(fault) => fault as i32,
    }
}

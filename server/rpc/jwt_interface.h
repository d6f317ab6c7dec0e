// The C interface of JSON Web Tokens in the Rust library (server/text/rust/src/jwt.rs, on the
// crate jsonwebtoken). Private to jwt.h's implementation. No panic crosses; all functions are
// thread-safe.
#ifndef VALUESCOPE_RPC_JWT_INTERFACE_H_
#define VALUESCOPE_RPC_JWT_INTERFACE_H_

#include <cstddef>
#include <cstdint>

extern "C" {

enum VsJwtFault : int32_t {
  VS_JWT_OK = 0,
  VS_JWT_NO_TOKEN = 1,  // not three parts of base64url, JSON and an algorithm that is known
  VS_JWT_UNKNOWN_KEY = 2,
  VS_JWT_BAD_SIGNATURE = 3,
  // From here on the signature holds.
  VS_JWT_EXPIRED = 4,
  VS_JWT_NOT_YET = 5,
  VS_JWT_OTHER_ISSUER = 6,
  VS_JWT_OTHER_AUDIENCE = 7,
  VS_JWT_MISSING_CLAIM = 8,  // exp, iss, aud or sub; or one of another type
  VS_JWT_INTERNAL = 9,
};

struct VsJwtKeys;

// The keys of a JWK set. Null where it is refused, and then `error`, which has room for
// `error_room` bytes, has the `error_size` bytes of why.
VsJwtKeys* vs_jwt_keys_parse(const char* text, size_t size, char* error, size_t error_room,
                             size_t* error_size);
void vs_jwt_keys_free(VsJwtKeys* keys);

// Whom `token` names: its `sub`, put into `subject`, which has room for `subject_room` bytes.
// `leeway` is seconds by which clocks may differ.
int32_t vs_jwt_verify(const VsJwtKeys* keys, const char* token, size_t token_size,
                      const char* issuer, size_t issuer_size, const char* audience,
                      size_t audience_size, uint64_t leeway, char* subject, size_t subject_room,
                      size_t* subject_size);

}  // extern "C"

#endif  // VALUESCOPE_RPC_JWT_INTERFACE_H_

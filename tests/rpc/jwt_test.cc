// Tokens that an issuer signed: made here with OpenSSL, apart from the library that reads them.
#include "rpc/jwt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"

namespace valuescope::rpc {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using KeyPair = std::unique_ptr<EVP_PKEY, FreeKey>;

std::string Base64Url(const std::string& bytes) {
  std::string text;
  absl::WebSafeBase64Escape(bytes, &text);  // without padding
  return text;
}

// An unsigned number of the key's, big-endian, of at least `width` bytes.
std::string NumberOf(const EVP_PKEY* key, const char* name, int width) {
  BIGNUM* number = nullptr;
  EXPECT_EQ(EVP_PKEY_get_bn_param(key, name, &number), 1);
  std::string bytes(static_cast<size_t>(std::max(width, BN_num_bytes(number))), '\0');
  BN_bn2binpad(number, reinterpret_cast<unsigned char*>(bytes.data()),
               static_cast<int>(bytes.size()));
  BN_free(number);
  return bytes;
}

// A key that signs with `algorithm`, and its public half as a JWK.
class Signer {
 public:
  Signer(std::string algorithm, const std::string& id, unsigned rsa_bits = 2048)
      : algorithm_(std::move(algorithm)), id_(id) {
    if (algorithm_ == "EdDSA") {
      key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
      std::string x(32, '\0');
      size_t size = x.size();
      EVP_PKEY_get_raw_public_key(key_.get(), reinterpret_cast<unsigned char*>(x.data()), &size);
      jwk_ = {{"kty", "OKP"}, {"crv", "Ed25519"}, {"x", Base64Url(x)}};
    } else if (algorithm_[0] == 'E') {
      const int width = algorithm_ == "ES256" ? 32 : 48;
      key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", width == 32 ? "P-256" : "P-384"));
      jwk_ = {{"kty", "EC"},
              {"crv", width == 32 ? "P-256" : "P-384"},
              {"x", Base64Url(NumberOf(key_.get(), OSSL_PKEY_PARAM_EC_PUB_X, width))},
              {"y", Base64Url(NumberOf(key_.get(), OSSL_PKEY_PARAM_EC_PUB_Y, width))}};
    } else {
      key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", size_t{rsa_bits}));
      jwk_ = {{"kty", "RSA"},
              {"n", Base64Url(NumberOf(key_.get(), OSSL_PKEY_PARAM_RSA_N, 0))},
              {"e", Base64Url(NumberOf(key_.get(), OSSL_PKEY_PARAM_RSA_E, 0))}};
    }
    if (!id_.empty()) jwk_["kid"] = id_;
  }

  const json& jwk() const { return jwk_; }

  std::string Token(const json& claims) const { return TokenWith({}, claims); }

  // With more in its header.
  std::string TokenWith(const json& more, const json& claims) const {
    json header = {{"alg", algorithm_}, {"typ", "JWT"}};
    if (!id_.empty()) header["kid"] = id_;
    header.update(more.is_null() ? json::object() : more);
    const std::string message =
        absl::StrCat(Base64Url(header.dump()), ".", Base64Url(claims.dump()));
    return absl::StrCat(message, ".", Base64Url(Signature(message)));
  }

 private:
  std::string Signature(const std::string& message) const {
    const std::string digest = algorithm_.substr(2);
    const char* const hash = algorithm_ == "EdDSA" ? nullptr
                             : digest == "256"     ? "SHA256"
                             : digest == "384"     ? "SHA384"
                                                   : "SHA512";
    EVP_MD_CTX* const context = EVP_MD_CTX_new();
    EVP_PKEY_CTX* of_key = nullptr;
    EXPECT_EQ(EVP_DigestSignInit_ex(context, &of_key, hash, nullptr, nullptr, key_.get(), nullptr),
              1);
    if (algorithm_[0] == 'P') {
      EVP_PKEY_CTX_set_rsa_padding(of_key, RSA_PKCS1_PSS_PADDING);
      EVP_PKEY_CTX_set_rsa_pss_saltlen(of_key, RSA_PSS_SALTLEN_DIGEST);
    }
    const auto* const text = reinterpret_cast<const unsigned char*>(message.data());
    std::string bytes(1024, '\0');
    size_t size = bytes.size();
    EXPECT_EQ(EVP_DigestSign(context, reinterpret_cast<unsigned char*>(bytes.data()), &size, text,
                             message.size()),
              1);
    EVP_MD_CTX_free(context);
    bytes.resize(size);
    return algorithm_ == "ES256" || algorithm_ == "ES384" ? Halves(bytes) : bytes;
  }

  // RFC 7518 has the two numbers of an ECDSA signature one behind the other, OpenSSL in ASN.1.
  std::string Halves(const std::string& der) const {
    const auto* place = reinterpret_cast<const unsigned char*>(der.data());
    ECDSA_SIG* const signature =
        d2i_ECDSA_SIG(nullptr, &place, static_cast<long>(der.size()));  // NOLINT(runtime/int)
    const int width = algorithm_ == "ES256" ? 32 : 48;
    std::string halves(static_cast<size_t>(2 * width), '\0');
    auto* const out = reinterpret_cast<unsigned char*>(halves.data());
    BN_bn2binpad(ECDSA_SIG_get0_r(signature), out, width);
    BN_bn2binpad(ECDSA_SIG_get0_s(signature), out + width, width);
    ECDSA_SIG_free(signature);
    return halves;
  }

  const std::string algorithm_, id_;
  KeyPair key_;
  json jwk_;
};

const JwtDemands kDemands = {.issuer = "https://issuer.example", .audience = "valuescope"};

json Claims() {
  const int64_t now = absl::ToUnixSeconds(absl::Now());
  return {{"iss", "https://issuer.example"},
          {"aud", "valuescope"},
          {"sub", "system:serviceaccount:lab:gate"},
          {"exp", now + 3600},
          {"nbf", now - 10}};
}

json With(const char* claim, const json& value) {
  json claims = Claims();
  claims[claim] = value;
  return claims;
}

json Without(const char* claim) {
  json claims = Claims();
  claims.erase(claim);
  return claims;
}

std::string SetOf(const std::vector<json>& keys) { return json{{"keys", keys}}.dump(); }

class JwtTest : public testing::Test {
 protected:
  // Of tokens of signer_: the subject, or the reason of the refusal.
  std::string Said(const std::string& token) const {
    const auto subject = keys_->SubjectOf(token, kDemands);
    if (subject.ok()) return *subject;
    EXPECT_EQ(subject.status().code(), absl::StatusCode::kUnauthenticated);
    return DetailsOf(subject.status()).reason;
  }

  const Signer signer_{"ES256", "one"};
  const absl::StatusOr<JwtKeys> keys_ = JwtKeys::Parse(SetOf({signer_.jwk()}));
};

TEST_F(JwtTest, EveryKindOfKeyTellsTheSubjectOfItsTokens) {
  for (const char* algorithm :
       {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}) {
    const Signer signer(algorithm, "key"), other(algorithm, "key");
    const auto keys = JwtKeys::Parse(SetOf({signer.jwk()}));
    ASSERT_TRUE(keys.ok()) << algorithm << keys.status();
    const auto subject = keys->SubjectOf(signer.Token(Claims()), kDemands);
    ASSERT_TRUE(subject.ok()) << algorithm << subject.status();
    EXPECT_EQ(*subject, "system:serviceaccount:lab:gate");
    EXPECT_FALSE(keys->SubjectOf(other.Token(Claims()), kDemands).ok()) << algorithm;
  }
}

TEST_F(JwtTest, ATokenThatWasChangedIsNone) {
  const std::string token = signer_.Token(Claims());
  EXPECT_EQ(Said(token), "system:serviceaccount:lab:gate");
  for (size_t i = 0; i < token.size(); i += 7) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(Said(changed), "TOKEN_UNKNOWN") << i;
    EXPECT_EQ(Said(token.substr(0, i)), "TOKEN_UNKNOWN") << i;
  }
  EXPECT_EQ(Said(token + "A"), "TOKEN_UNKNOWN");
  EXPECT_EQ(Said(token + "." + token), "TOKEN_UNKNOWN");
  EXPECT_EQ(Said(""), "TOKEN_UNKNOWN");
  EXPECT_EQ(Said(std::string(8000, '.')), "TOKEN_UNKNOWN");
}

TEST_F(JwtTest, NoTokenChoosesHowItIsLookedAt) {
  const json claims = Claims();
  for (const json& header :
       {json{{"alg", "none"}}, json{{"alg", "HS256"}}, json{{"alg", "ES384"}},
        json{{"alg", "RS256"}}, json{{"alg", 256}}, json{{"kid", "two"}},
        json{{"crit", {"x"}}, {"x", 1}}, json{{"jwk", signer_.jwk()}, {"kid", "mine"}}}) {
    EXPECT_EQ(Said(signer_.TokenWith(header, claims)), "TOKEN_UNKNOWN") << header;
  }
  const std::string message =
      absl::StrCat(Base64Url(R"({"alg":"none"})"), ".", Base64Url(claims.dump()));
  EXPECT_EQ(Said(message + "."), "TOKEN_UNKNOWN");
  EXPECT_EQ(Said(message), "TOKEN_UNKNOWN");
}

TEST_F(JwtTest, TimesCountWithinTheLeeway) {
  const int64_t now = absl::ToUnixSeconds(absl::Now());
  EXPECT_EQ(Said(signer_.Token(With("exp", now - 30))), "system:serviceaccount:lab:gate");
  EXPECT_EQ(Said(signer_.Token(With("exp", now - 90))), "TOKEN_EXPIRED");
  EXPECT_EQ(Said(signer_.Token(With("exp", 0))), "TOKEN_EXPIRED");
  EXPECT_EQ(Said(signer_.Token(With("nbf", now + 30))), "system:serviceaccount:lab:gate");
  EXPECT_EQ(Said(signer_.Token(With("nbf", now + 90))), "TOKEN_EXPIRED");
  EXPECT_EQ(Said(signer_.Token(Without("nbf"))), "system:serviceaccount:lab:gate");
  const JwtDemands strict = {
      .issuer = kDemands.issuer, .audience = kDemands.audience, .leeway = absl::ZeroDuration()};
  EXPECT_FALSE(keys_->SubjectOf(signer_.Token(With("exp", now - 30)), strict).ok());
}

TEST_F(JwtTest, AnotherIssuerAudienceOrClaimIsRefused) {
  const std::vector<json> others = {With("iss", "https://issuer.example/"),
                                    With("iss", json{"https://issuer.example"}),
                                    With("iss", 1),
                                    With("aud", "valuescope2"),
                                    With("aud", json::array()),
                                    With("aud", json{"a", "b"}),
                                    With("sub", 7),
                                    With("sub", nullptr),
                                    With("sub", ""),
                                    With("sub", std::string(257, 's')),
                                    With("exp", "tomorrow"),
                                    With("exp", -1),
                                    With("nbf", "today"),
                                    Without("iss"),
                                    Without("aud"),
                                    Without("sub"),
                                    Without("exp"),
                                    json::array(),
                                    json("text")};
  for (const json& claims : others) {
    EXPECT_EQ(Said(signer_.Token(claims)), "TOKEN_UNKNOWN") << claims;
  }
  EXPECT_EQ(Said(signer_.Token(With("aud", json{"other", "valuescope"}))),
            "system:serviceaccount:lab:gate");
}

TEST_F(JwtTest, AKeyIsTakenByItsIdAndOneWithoutOneByWhatItCan) {
  const Signer rsa("RS256", ""), curve("ES256", "curve");
  const auto keys = JwtKeys::Parse(SetOf({rsa.jwk(), curve.jwk(), signer_.jwk()}));
  ASSERT_TRUE(keys.ok());
  for (const Signer* signer : {&rsa, &curve, &signer_}) {
    EXPECT_TRUE(keys->SubjectOf(signer->Token(Claims()), kDemands).ok());
  }
  // A token without a `kid` is tried with each.
  json nameless = signer_.jwk();
  EXPECT_TRUE(keys->SubjectOf(rsa.Token(Claims()), kDemands).ok());
  EXPECT_FALSE(keys->SubjectOf(curve.TokenWith({{"kid", "one"}}, Claims()), kDemands).ok());
}

TEST(JwtKeysTest, WhatIsForSomethingElseIsPassedBy) {
  const Signer signer("ES256", "one");
  json encrypts = Signer("ES256", "two").jwk();
  encrypts["use"] = "enc";
  const json unknown = {{"kty", "LATTICE"}, {"kid", "three"}};
  const json bitcoin = {{"kty", "EC"}, {"crv", "secp256k1"}, {"x", "AA"}, {"y", "AA"}};
  EXPECT_TRUE(JwtKeys::Parse(SetOf({encrypts, unknown, bitcoin, signer.jwk()})).ok());
  EXPECT_THAT(std::string(JwtKeys::Parse(SetOf({encrypts, unknown, bitcoin})).status().message()),
              HasSubstr("no key for signatures"));
}

TEST(JwtKeysTest, WhatIsNoSetOfPublicKeysIsRefused) {
  const Signer signer("ES256", "one");
  json secret = signer.jwk();
  secret["d"] = "AA";
  const json symmetric = {{"kty", "oct"}, {"k", "AAAA"}};
  for (const auto& [text, told] : {std::pair<std::string, std::string>{"", "JSON"},
                                   {"[]", "JWK set"},
                                   {R"({"keys": {}})", "JWK set"},
                                   {SetOf({}), "no key for signatures"},
                                   {SetOf({json(1)}), "keys[0] is no object"},
                                   {SetOf({signer.jwk(), secret}), "keys[1] is a secret key"},
                                   {SetOf({symmetric}), "keys[0] is a secret key"},
                                   {SetOf({Signer("RS256", "short", 1024).jwk()}), "has 1024 bits"},
                                   {SetOf(std::vector<json>(65, signer.jwk())), "65 keys"}}) {
    const auto keys = JwtKeys::Parse(text);
    ASSERT_FALSE(keys.ok()) << told;
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr(told));
  }
}

TEST(JwtIssuerTest, KeysAreReadAgain) {
  const std::string path = absl::StrCat(testing::TempDir(), "/jwks_", ::getpid());
  const Signer before("ES256", "before"), after("ES256", "after");
  JwtIssuer issuer(path, kDemands);
  EXPECT_FALSE(issuer.Read().ok());
  std::ofstream(path) << SetOf({before.jwk()});
  ASSERT_TRUE(issuer.Read().ok());
  EXPECT_TRUE(issuer.SubjectOf(before.Token(Claims())).ok());
  std::ofstream(path) << SetOf({after.jwk(), before.jwk()});
  issuer.Look();
  EXPECT_TRUE(issuer.Look()->ok());
  EXPECT_TRUE(issuer.SubjectOf(after.Token(Claims())).ok());
  std::ofstream(path) << "{";
  issuer.Look();
  EXPECT_FALSE(issuer.Look()->ok());
  EXPECT_TRUE(issuer.SubjectOf(after.Token(Claims())).ok());
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace valuescope::rpc

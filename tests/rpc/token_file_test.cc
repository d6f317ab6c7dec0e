#include "rpc/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace valuescope::rpc {
namespace {

using testing::HasSubstr;

// SHA-256 as NIST's example and others publish it.
constexpr char kAbc[] =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // "abc"
constexpr char kTest[] =
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";  // "test"

std::string Line(const std::string& sha256, const std::string& tenant, const std::string& role) {
  return absl::StrCat(R"({"sha256": ")", sha256, R"(", "tenant": ")", tenant, R"(", "role": ")",
                      role, "\"}\n");
}

TEST(ParseTokensTest, ReadsALineForEachToken) {
  const auto tokens = ParseTokens(absl::StrCat(
      Line(kAbc, "lab", "reader"), "\n  \n",
      R"({"role": "admin", "name": "on call", "tenant": "ops",)", R"( "sha256": ")", kTest, "\"}"));
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2u);
  EXPECT_EQ((*tokens)[0].sha256, kAbc);
  EXPECT_EQ((*tokens)[0].caller, (Caller{.tenant = "lab", .role = Role::kReader}));
  EXPECT_EQ((*tokens)[1].caller,
            (Caller{.tenant = "ops", .role = Role::kAdmin, .name = "on call"}));
}

TEST(ParseTokensTest, NamesTheLineThatIsWrongAndShowsNothingOfIt) {
  const std::string good = Line(kAbc, "lab", "user");
  const std::string shouted = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
  for (const auto& [line, told] :
       {std::pair<std::string, std::string>{"vs_secret", "JSON"},
        {"[\"vs_secret\"]", "no JSON object"},
        {Line("vs_secret", "lab", "user"), "sha256"},
        {Line(shouted, "lab", "user"), "lower-case"},
        {Line(kTest, "", "user"), "tenant"},
        {Line(kTest, "../vs_secret", "user"), "tenant"},
        {Line(kTest, "shared", "user"), "another tenant than shared"},
        {R"({"sub": "a", "tenant": "shared", "role": "user"})", "another tenant than shared"},
        {Line(kTest, "lab", "vs_secret"), "reader, user or admin"},
        {Line(kTest, "lab", ""), "reader, user or admin"},
        {R"({"sha256": 1, "tenant": "lab", "role": "user"})", "each a string"},
        {R"({"token": "vs_secret", "tenant": "lab", "role": "user"})",
         "sha256 or sub, tenant, role"},
        {R"({"sub": "", "tenant": "lab", "role": "user"})", "either sub, or sha256"},
        {R"({"sub": "vs_*_secret", "tenant": "lab", "role": "user"})", "* as its last"},
        {R"({"sub": "vs_secret**", "tenant": "lab", "role": "user"})", "* as its last"},
        {R"({"sub": "a", "sha256": "vs_secret", "tenant": "lab", "role": "user"})", "either sub"},
        {absl::StrCat(R"({"sub": ")", std::string(257, 's'),
                      R"(", "tenant": "l", "role": "user"})"),
         "256 bytes"},
        {R"({"role": "user", "role": "admin"})", "role"},
        {good, "another line"},
        {absl::StrCat(R"({"sha256": ")", kTest, R"(", "tenant": "lab", "role": "user", "name": ")",
                      std::string(257, 'n'), "\"}"),
         "256"}}) {
    const auto tokens = ParseTokens(good + line);
    EXPECT_THAT(std::string(tokens.status().message()), HasSubstr("line 2")) << line;
    EXPECT_THAT(std::string(tokens.status().message()), HasSubstr(told)) << line;
    EXPECT_THAT(std::string(tokens.status().message()), Not(HasSubstr("vs_secret")));
  }
}

TEST(ParseTokensTest, RefusesNoneAndTooMany) {
  EXPECT_FALSE(ParseTokens("").ok());
  EXPECT_FALSE(ParseTokens("\n\n").ok());
  std::string text;
  for (size_t i = 0; i < kMostTokens; ++i) {
    absl::StrAppend(&text, Line(absl::StrCat(absl::Hex(i, absl::kZeroPad16), std::string(48, '0')),
                                "lab", "user"));
  }
  EXPECT_TRUE(ParseTokens(text).ok());
  EXPECT_FALSE(ParseTokens(text + Line(kAbc, "lab", "user")).ok());
}

std::string SubjectLine(const std::string& sub, const std::string& tenant) {
  return absl::StrCat(R"({"sub": ")", sub, R"(", "tenant": ")", tenant,
                      "\", \"role\": \"user\"}\n");
}

class TokenFileTest : public testing::Test {
 protected:
  TokenFileTest() { std::filesystem::remove(path_); }
  ~TokenFileTest() override { std::filesystem::remove(path_); }

  // In place of what is there, as whoever renames a file does it.
  void Write(const std::string& text) const {
    std::ofstream(path_ + ".new") << text;
    std::filesystem::rename(path_ + ".new", path_);
  }
  std::string TenantOf(const std::string& token) const {
    const auto caller = file_.CallerOf(token);
    return caller ? caller->tenant : "";
  }

  const std::string path_ = absl::StrCat(testing::TempDir(), "/tokens_", ::getpid());
  TokenFile file_{path_};
};

TEST_F(TokenFileTest, KnowsATokenByItsDigest) {
  Write(Line(kAbc, "lab", "user"));
  EXPECT_EQ(TenantOf("abc"), "");  // before it is read
  ASSERT_TRUE(file_.Read().ok());
  EXPECT_EQ(TenantOf("abc"), "lab");
  for (const char* other : {"", "abd", "ab", "abcd", kAbc, "test"}) EXPECT_EQ(TenantOf(other), "");
}

TEST_F(TokenFileTest, ASubjectIsWhoItsOwnLineSaysElseTheLongestThatItBeginsWith) {
  Write(SubjectLine("account:*", "all") + SubjectLine("account:lab:*", "lab") +
        SubjectLine("account:lab:gate", "gates") + Line(kAbc, "tokens", "user"));
  EXPECT_FALSE(file_.CallerOfSubject("account:lab:gate").has_value());  // before it is read
  ASSERT_TRUE(file_.Read().ok());
  for (const auto& [sub, tenant] :
       {std::pair("account:lab:gate", "gates"), std::pair("account:lab:gates", "lab"),
        std::pair("account:lab:", "lab"), std::pair("account:lab", "all")}) {
    const auto caller = file_.CallerOfSubject(sub);
    ASSERT_TRUE(caller.has_value()) << sub;
    EXPECT_EQ(*caller, (Caller{.tenant = tenant, .role = Role::kUser, .name = sub}));
  }
  for (const char* other : {"", "account", "Account:lab:gate", "abc", kAbc}) {
    EXPECT_FALSE(file_.CallerOfSubject(other).has_value()) << other;
  }
  // Nobody is let in by the subject of a line, or the empty digest of one, as a token.
  for (const char* token : {"", "account:lab:gate", "account:*"}) EXPECT_EQ(TenantOf(token), "");
  Write(SubjectLine("a", "lab") + SubjectLine("a", "other"));
  file_.Look();
  EXPECT_THAT(std::string(file_.Look()->message()), HasSubstr("another line"));
}

TEST_F(TokenFileTest, IsReadAgainOnceItHasChangedAndRests) {
  Write(Line(kAbc, "lab", "user"));
  ASSERT_TRUE(file_.Read().ok());
  EXPECT_FALSE(file_.Look().has_value());
  Write(Line(kTest, "other", "user"));
  EXPECT_FALSE(file_.Look().has_value());  // somebody may be writing it
  EXPECT_EQ(TenantOf("abc"), "lab");
  EXPECT_TRUE(file_.Look()->ok());
  EXPECT_EQ(TenantOf("abc"), "");
  EXPECT_EQ(TenantOf("test"), "other");
  EXPECT_FALSE(file_.Look().has_value());
}

TEST_F(TokenFileTest, WaitsForAWriterAsLongAsItWrites) {
  Write(Line(kAbc, "lab", "user"));
  ASSERT_TRUE(file_.Read().ok());
  for (int i = 0; i < 5; ++i) {
    std::ofstream(path_, std::ios::app) << "\n";
    EXPECT_FALSE(file_.Look().has_value());
  }
  EXPECT_TRUE(file_.Look()->ok());
}

TEST_F(TokenFileTest, AMistakeLeavesTheOneBeforeInForceAndIsToldOnce) {
  Write(Line(kAbc, "lab", "user"));
  ASSERT_TRUE(file_.Read().ok());
  Write(Line(kTest, "other", "user") + "{");
  file_.Look();
  EXPECT_THAT(std::string(file_.Look()->message()), HasSubstr("line 2"));
  EXPECT_FALSE(file_.Look().has_value());
  EXPECT_EQ(TenantOf("abc"), "lab");
  std::filesystem::remove(path_);
  file_.Look();
  EXPECT_THAT(std::string(file_.Look()->message()), HasSubstr("cannot be read"));
  EXPECT_EQ(TenantOf("abc"), "lab");
  Write(Line(kTest, "other", "user"));
  file_.Look();
  EXPECT_TRUE(file_.Look()->ok());
  EXPECT_EQ(TenantOf("test"), "other");
}

TEST_F(TokenFileTest, FollowsLinksAsKubernetesChangesThem) {
  namespace fs = std::filesystem;
  const std::string folder = path_ + ".d";
  fs::remove_all(folder);
  for (const auto& [version, digest] : {std::pair("1", kAbc), std::pair("2", kTest)}) {
    fs::create_directories(fs::path(folder) / version);
    std::ofstream(fs::path(folder) / version / "tokens") << Line(digest, "lab", "user");
  }
  fs::create_directory_symlink("1", fs::path(folder) / "data");
  TokenFile file((fs::path(folder) / "data" / "tokens").string());
  ASSERT_TRUE(file.Read().ok());
  fs::create_directory_symlink("2", fs::path(folder) / "next");
  fs::rename(fs::path(folder) / "next", fs::path(folder) / "data");
  file.Look();
  EXPECT_TRUE(file.Look()->ok());
  EXPECT_TRUE(file.CallerOf("test").has_value());
  EXPECT_FALSE(file.CallerOf("abc").has_value());
  fs::remove_all(folder);
}

}  // namespace
}  // namespace valuescope::rpc

#include "observability/audit_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace valuescope::observability {
namespace {

using testing::HasSubstr;

class AuditLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<AuditLog> Opened() const { return AuditLog::Open(file_).value(); }

  static std::vector<nlohmann::json> LinesOf(const std::string& path) {
    std::ifstream file(path);
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }

  const std::string folder_ = absl::StrCat(testing::TempDir(), "/audit_", ::getpid());
  const std::string file_ = folder_ + "/audit.jsonl";
};

TEST_F(AuditLogTest, ALineIsInTheFileOnceItWasWrittenAndStaysOverARestart) {
  EXPECT_TRUE(Opened()->Write({{"tenant", "lab"}, {"method", "a"}}));
  const auto log = Opened();
  EXPECT_TRUE(log->Write({{"tenant", "lab\n\xff"}, {"method", "b"}}));
  const auto lines = LinesOf(file_);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["event"], "audit");
  EXPECT_EQ(lines[0]["tenant"], "lab");
  EXPECT_THAT(lines[0]["time"].get<std::string>(), HasSubstr("T"));
  EXPECT_EQ(lines[1]["method"], "b");
}

TEST_F(AuditLogTest, NobodyElseMayReadIt) {
  const auto log = Opened();
  struct stat status = {};
  ASSERT_EQ(::stat(file_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(AuditLogTest, WhereItWasMovedAwayAnotherOneIsBegun) {
  const auto log = Opened();
  EXPECT_TRUE(log->Write({{"method", "a"}}));
  std::filesystem::rename(file_, file_ + ".1");
  EXPECT_TRUE(log->Write({{"method", "b"}}));
  std::filesystem::remove(file_);
  EXPECT_TRUE(log->Write({{"method", "c"}}));
  EXPECT_EQ(LinesOf(file_ + ".1").size(), 1u);
  ASSERT_EQ(LinesOf(file_).size(), 1u);
  EXPECT_EQ(LinesOf(file_)[0]["method"], "c");
}

TEST_F(AuditLogTest, SaysThatALineIsLostAndGoesOnOnceThereIsAPlaceAgain) {
  const auto log = Opened();
  std::filesystem::remove_all(folder_);
  EXPECT_FALSE(log->Write({{"method", "a"}}));
  std::filesystem::create_directories(folder_);
  EXPECT_TRUE(log->Write({{"method", "b"}}));
  EXPECT_EQ(LinesOf(file_).size(), 1u);
}

TEST_F(AuditLogTest, LinesOfManyThreadsAreWhole) {
  const auto log = Opened();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&log, i] {
      for (int j = 0; j < 100; ++j) EXPECT_TRUE(log->Write({{"thread", i}, {"line", j}}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(LinesOf(file_).size(), 400u);
}

TEST_F(AuditLogTest, AFileThatCannotBeWrittenIsRefused) {
  EXPECT_THAT(std::string(AuditLog::Open(folder_ + "/no/audit").status().message()),
              HasSubstr("cannot be written to"));
  EXPECT_FALSE(AuditLog::Open(folder_).ok());
}

}  // namespace
}  // namespace valuescope::observability

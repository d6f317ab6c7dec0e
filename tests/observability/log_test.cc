#include "observability/log.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace valuescope::observability {
namespace {

TEST(LogTest, ALineIsOneJsonObjectWhateverTheFieldsHold) {
  const std::string line = FormatLogLine("2026-01-02T03:04:05.678Z", LogLevel::kWarning, "rpc",
                                         {{"text", "two\nlines \"quoted\" \xff"},
                                          {"count", int64_t{3}},
                                          {"seconds", 0.5},
                                          {"ok", true},
                                          {"empty", ""}});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["time"], "2026-01-02T03:04:05.678Z");
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["event"], "rpc");
  EXPECT_EQ(json["text"], "two\nlines \"quoted\" \xEF\xBF\xBD");
  EXPECT_EQ(json["count"], 3);
  EXPECT_EQ(json["seconds"], 0.5);
  EXPECT_EQ(json["ok"], true);
  EXPECT_FALSE(json.contains("empty"));
}

TEST(LogTest, LinesBelowTheLevelAreDropped) {
  SetLogLevel(LogLevel::kError);
  testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "quiet");
  Log(LogLevel::kError, "loud");
  const std::string written = testing::internal::GetCapturedStderr();
  EXPECT_EQ(written.find("quiet"), std::string::npos);
  EXPECT_NE(written.find("loud"), std::string::npos);
  EXPECT_EQ(written.back(), '\n');
}

}  // namespace
}  // namespace valuescope::observability

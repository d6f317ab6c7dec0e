// Logs as JSON Lines on standard error: one object a line, so that a collector needs no parser of
// our own. Fields are values that the server made (ids, counts, codes); prompts, generated text and
// credentials never enter a log.
//
//   {"time":"2026-01-02T03:04:05.678Z","level":"info","event":"rpc","method":"...",...}
#ifndef VALUESCOPE_OBSERVABILITY_LOG_H_
#define VALUESCOPE_OBSERVABILITY_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"

namespace valuescope::observability {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

// A field of a log line. Empty strings are left out.
struct LogField {
  LogField(absl::string_view name, absl::string_view value)
      : name(name), value(std::string(value)) {}
  LogField(absl::string_view name, const char* value) : name(name), value(std::string(value)) {}
  LogField(absl::string_view name, int64_t value) : name(name), value(value) {}
  LogField(absl::string_view name, int value) : name(name), value(int64_t{value}) {}
  LogField(absl::string_view name, double value) : name(name), value(value) {}
  LogField(absl::string_view name, bool value) : name(name), value(value) {}

  std::string name;
  std::variant<std::string, int64_t, double, bool> value;
};

// Lines below `level` are dropped. kInfo until this is called.
void SetLogLevel(LogLevel level);

// Writes one line. `event` is a short fixed name ("rpc", "model loaded"). Thread-safe.
void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});

// Now, as lines say it.
std::string LogTime();

// The line that Log writes; bytes that are not UTF-8 become U+FFFD.
std::string FormatLogLine(absl::string_view time, LogLevel level, absl::string_view event,
                          std::initializer_list<LogField> fields);

}  // namespace valuescope::observability

#endif  // VALUESCOPE_OBSERVABILITY_LOG_H_

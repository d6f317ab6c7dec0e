#include "output.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/type_resolver_util.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "valuescope/error.h"

namespace valuescope::command_line {
namespace {

const char* AdviceFor(const absl::Status& status) {
  if (ErrorDetailsOf(status).reason == "USE_A_JOB") {
    return "the same command with --job makes one, where it has that flag";
  }
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return "is the server running, and is --server=HOST:PORT (or VALUESCOPE_SERVER) right?";
    case absl::StatusCode::kNotFound:
      return "list what exists with 'valuescope models', 'vectors list', 'jobs list' or 'artifacts "
             "list'";
    case absl::StatusCode::kUnauthenticated:
      return "this server wants to know who calls: set --token_file or --token (or "
             "VALUESCOPE_TOKEN_FILE, VALUESCOPE_TOKEN)";
    case absl::StatusCode::kPermissionDenied:
      return "ask the server's operator for a token with that role";
    case absl::StatusCode::kDeadlineExceeded:
      return "allow more time with --timeout=SECONDS";
    case absl::StatusCode::kInternal:
      return "a fault of the server: quote the request id to its operator";
    default:
      return nullptr;
  }
}

// Characters of UTF-8, not bytes.
size_t Length(const std::string& text) {
  return static_cast<size_t>(absl::c_count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return kRequestRefused;
    case absl::StatusCode::kResourceExhausted:  // without a time to come back it never fits
      return ErrorDetailsOf(status).retry_after ? kServerError : kRequestRefused;
    case absl::StatusCode::kCancelled:
      return kInterrupted;
    default:
      return kServerError;
  }
}

int Fail(const absl::Status& status) {
  std::cerr << "error: " << ErrorText(status) << "\n";
  if (const char* advice = AdviceFor(status)) std::cerr << "  " << advice << "\n";
  return ExitCodeOf(status);
}

int FailUsage(const absl::Status& status) {
  Fail(status);
  return kUsageError;
}

std::string NumberOrNothing(bool is_set, double number) {
  return is_set ? absl::StrFormat("%.4g", number) : "";
}

void PrintWarnings(const google::protobuf::RepeatedPtrField<std::string>& warnings) {
  for (const std::string& warning : warnings) std::cerr << "warning: " << warning << "\n";
}

void PrintTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Length(row[i]));
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, row[i], std::string(widths[i] - Length(row[i]) + 2, ' '));
    }
    std::cout << absl::StripTrailingAsciiWhitespace(line) << "\n";
  }
}

void PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  // Maps have no order: what is printed twice is the same text.
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  constexpr char kUrlPrefix[] = "type.googleapis.com";
  const std::unique_ptr<google::protobuf::util::TypeResolver> resolver(
      google::protobuf::util::NewTypeResolverForDescriptorPool(
          kUrlPrefix, google::protobuf::DescriptorPool::generated_pool()));
  std::string json;
  if (google::protobuf::util::BinaryToJsonString(
          resolver.get(), absl::StrCat(kUrlPrefix, "/", message.GetDescriptor()->full_name()),
          bytes, &json, options)
          .ok()) {
    std::cout << json << "\n";
  }
}

std::string LowerWithoutPrefix(const std::string& name, const std::string& prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

std::string ShortDigest(const std::string& digest) { return digest.substr(0, 12); }

}  // namespace valuescope::command_line

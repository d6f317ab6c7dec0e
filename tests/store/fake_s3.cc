#include "tests/store/fake_s3.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace valuescope::store {
namespace {

constexpr char kFakeS3[] = VALUESCOPE_SOURCE_DIR "/tests/store/fake_s3.py";

std::string ReadLine(FILE* file) {
  std::string line;
  for (int c; (c = std::fgetc(file)) != EOF && c != '\n';) line += static_cast<char>(c);
  return line;
}

}  // namespace

FakeS3::FakeS3(std::vector<std::string> more) {
  std::array<int, 2> orders, answers;
  VS_CHECK(pipe2(orders.data(), O_CLOEXEC) == 0 && pipe2(answers.data(), O_CLOEXEC) == 0);
  std::vector<const char*> arguments = {"python3", kFakeS3};
  for (const std::string& option : more) arguments.push_back(option.c_str());
  arguments.push_back(nullptr);
  process_ = fork();
  if (process_ == 0) {
    dup2(orders[0], STDIN_FILENO);
    dup2(answers[1], STDOUT_FILENO);
    execvp("python3", const_cast<char* const*>(arguments.data()));
    _exit(127);
  }
  close(orders[0]);
  close(answers[1]);
  orders_ = fdopen(orders[1], "w");
  answers_ = fdopen(answers[0], "r");
  port_ = std::stoi(ReadLine(answers_));
  std::ofstream(CredentialsFile()) << CredentialsText("AKIDTEST", "secret/+key");
}

FakeS3& FakeS3::Anew() {
  static FakeS3 fake;
  fake.Tell({{"do", "reset"}});
  std::ofstream(fake.CredentialsFile()) << CredentialsText("AKIDTEST", "secret/+key");
  return fake;
}

FakeS3::~FakeS3() {
  std::fclose(orders_);
  std::fclose(answers_);
  kill(process_, SIGKILL);
  waitpid(process_, /*status=*/nullptr, /*options=*/0);
}

nlohmann::json FakeS3::Tell(const nlohmann::json& order) {
  std::fprintf(orders_, "%s\n", order.dump().c_str());
  std::fflush(orders_);
  return nlohmann::json::parse(ReadLine(answers_));
}

int FakeS3::Count(const std::string& operation) {
  return Tell({{"do", "counts"}}).value(operation, 0);
}

S3Options FakeS3::Options() const {
  return {.bucket = "values",
          .prefix = "lab/values",
          .endpoint = absl::StrCat("http://127.0.0.1:", port_),
          .credentials_file = CredentialsFile(),
          .scratch_folder = folder_ / "scratch",
          .part_bytes = 1000,
          .longest_stall = absl::Seconds(1),
          .patience = absl::Seconds(5),
          .first_pause = absl::Milliseconds(1)};
}

std::string FakeS3::CredentialsText(const std::string& access_key, const std::string& secret_key) {
  return absl::StrCat("[other]\naws_access_key_id = nobody\n[default]\naws_access_key_id = ",
                      access_key, "\naws_secret_access_key=", secret_key, "\n");
}

}  // namespace valuescope::store

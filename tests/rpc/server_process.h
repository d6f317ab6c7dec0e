// The server program as a child process, reached on the port that it announces.
#ifndef VALUESCOPE_TESTS_RPC_SERVER_PROCESS_H_
#define VALUESCOPE_TESTS_RPC_SERVER_PROCESS_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace valuescope::rpc {

class ServerProcess {
 public:
  // `flags` come after free ports and a store in a fresh directory.
  explicit ServerProcess(const std::vector<std::string>& flags = {}) {
    std::string pattern = testing::TempDir() + "/valuescope_server_XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    std::vector<std::string> arguments = {VALUESCOPE_SERVER, "--listen=127.0.0.1:0",
                                          "--metrics_listen=127.0.0.1:0",
                                          "--store=sqlite:" + directory_ + "/store.db"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    int out[2];
    EXPECT_EQ(::pipe(out), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const int log = ::open((directory_ + "/log").c_str(), O_CREAT | O_WRONLY, 0600);
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(log, STDERR_FILENO);
      ::close(out[0]);
      ::close(out[1]);
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      ::execv(VALUESCOPE_SERVER, argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    output_ = out[0];
  }

  ~ServerProcess() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(output_);
    std::filesystem::remove_all(directory_);
  }

  // The announced address; empty where the process ended instead.
  std::string WaitForAddress() {
    std::string line;
    for (char c; ::read(output_, &c, 1) == 1 && c != '\n';) line += c;
    const std::string announcement = "listening on ";
    return line.rfind(announcement, 0) == 0 ? line.substr(announcement.size()) : "";
  }

  void Signal(int signal) { ::kill(pid_, signal); }
  pid_t pid() const { return pid_; }

  // Exit code, or 128 + the signal that ended it.
  int WaitForExit() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::string Log() const {
    std::ostringstream text;
    text << std::ifstream(directory_ + "/log").rdbuf();
    return text.str();
  }

 private:
  std::string directory_;
  pid_t pid_ = -1;
  int output_ = -1;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_TESTS_RPC_SERVER_PROCESS_H_

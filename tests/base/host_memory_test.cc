#include "base/host_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace valuescope {
namespace {

namespace fs = std::filesystem;

// As a container sees the system's files.
class HostMemoryTest : public ::testing::Test {
 protected:
  HostMemoryTest()
      : root_(fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
  }
  ~HostMemoryTest() override { fs::remove_all(root_); }

  int64_t With(const std::string& file, const std::string& content) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << content;
    return HostMemoryBytes(root_.string() + "/");
  }

  const fs::path root_;
};

TEST_F(HostMemoryTest, IsTheMachinesWhereNoContainerSaysOtherwise) {
  const int64_t machine = HostMemoryBytes(root_.string() + "/");
  EXPECT_GT(machine, 1 << 20);
  EXPECT_EQ(With("sys/fs/cgroup/memory.max", "max\n"), machine);
  EXPECT_EQ(With("sys/fs/cgroup/memory.max", "9223372036854771712\n"), machine);
  EXPECT_EQ(With("sys/fs/cgroup/memory.max", "not a number\n"), machine);
}

TEST_F(HostMemoryTest, IsTheContainersLimitOfEitherVersion) {
  EXPECT_EQ(With("sys/fs/cgroup/memory/memory.limit_in_bytes", "7340032\n"), 7340032);
  EXPECT_EQ(With("sys/fs/cgroup/memory.max", "4194304\n"), 4194304);
}

}  // namespace
}  // namespace valuescope

// A file of a model's folder is opened only if it lies within the folder, however the way to it is
// spelled.
#include <gtest/gtest.h>

#include "model/safetensors.h"
#include "tests/model/model_folder.h"

namespace valuescope::model {
namespace {

TEST(MappedFile, RefusesEveryWayOutOfTheFolder) {
  const ModelFolder outside;
  outside.Write("secret", "abc");
  const ModelFolder folder;
  folder.Write("inside", "abc");
  std::filesystem::create_symlink(outside / "secret", folder / "absolute");
  std::filesystem::create_directory_symlink(outside.path(), folder / "directory_link");
  const std::string parent =
      "../" + std::filesystem::path(outside.path()).filename().string() + "/secret";
  EXPECT_TRUE(MappedFile::Open(folder.path(), "inside").ok());
  for (const std::string& name :
       {std::string("absolute"), std::string("directory_link/secret"), parent}) {
    EXPECT_EQ(MappedFile::Open(folder.path(), name).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
}

}  // namespace
}  // namespace valuescope::model

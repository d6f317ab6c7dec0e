// A file of a model's folder is opened only if it lies within the folder, however the way to it is
// spelled.
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/safetensors.h"
#include "tests/model/model_folder.h"

namespace valuescope::model {
namespace {

TEST(ModelFile, RefusesEveryWayOutOfTheFolder) {
  const ModelFolder outside;
  outside.Write("secret", "abc");
  const ModelFolder folder;
  folder.Write("inside", "abc");
  std::filesystem::create_symlink(outside / "secret", folder / "absolute");
  std::filesystem::create_directory_symlink(outside.path(), folder / "directory_link");
  const std::string parent =
      "../" + std::filesystem::path(outside.path()).filename().string() + "/secret";
  EXPECT_TRUE(ModelFile::Open(folder.path(), "inside").ok());
  for (const std::string& name :
       {std::string("absolute"), std::string("directory_link/secret"), parent}) {
    EXPECT_EQ(ModelFile::Open(folder.path(), name).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
}

TEST(ModelFile, WhatIsCutOffAnOpenFileIsAnErrorAndTheRestIsRead) {
  const ModelFolder folder;
  folder.Write("file", std::string(3 << 12, 'x'));
  const auto file = ModelFile::Open(folder.path(), "file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 3 << 12);
  std::filesystem::resize_file(folder / "file", 1 << 12);
  std::string bytes(3 << 12, '\0');
  EXPECT_TRUE((*file)->Read(0, 1 << 12, bytes.data()).ok());
  EXPECT_EQ(bytes.substr(0, 1 << 12), std::string(1 << 12, 'x'));
  EXPECT_EQ(DetailsOf((*file)->Read(0, 3 << 12, bytes.data())).reason, "MODEL_FILES_CHANGED");
  EXPECT_EQ(DetailsOf((*file)->Read(2 << 12, 1, bytes.data())).reason, "MODEL_FILES_CHANGED");
  EXPECT_EQ(DetailsOf((*file)->ReadAll(3 << 12).status()).reason, "MODEL_FILES_CHANGED");
  EXPECT_EQ((*file)->ReadAll((3 << 12) - 1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace valuescope::model

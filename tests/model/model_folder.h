// A model folder written by a test: config.json and safetensors files, whole or broken on purpose.
#ifndef VALUESCOPE_TESTS_MODEL_MODEL_FOLDER_H_
#define VALUESCOPE_TESTS_MODEL_MODEL_FOLDER_H_

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/string_view.h"
#include "base/id.h"

namespace valuescope::model {

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A folder of its own, removed at the end of the test.
class ModelFolder {
 public:
  ModelFolder()
      : path_(std::filesystem::temp_directory_path() / ("valuescope-model-" + NewUuid())) {
    std::filesystem::create_directory(path_);
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  std::string path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  void Write(const std::string& name, absl::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary).write(bytes.data(), bytes.size());
  }
  void CopyFrom(const std::filesystem::path& folder) const {
    std::filesystem::copy(folder, path_, std::filesystem::copy_options::recursive);
  }

 private:
  std::filesystem::path path_;
};

// The bytes of a safetensors file: the header's length, the header, the data.
inline std::string Safetensors(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));
  return bytes + header + data;
}

}  // namespace valuescope::model

#endif  // VALUESCOPE_TESTS_MODEL_MODEL_FOLDER_H_

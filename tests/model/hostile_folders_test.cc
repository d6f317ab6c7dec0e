// Model folders come from strangers. Each test breaks one thing in a folder that loads and goes
// through the registry that serves it: the answer is a sentence that names what is wrong, no two
// mistakes share a sentence, and a good folder still loads afterwards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/model_registry.h"
#include "tests/model/model_folder.h"
#include "tests/text/small_tokenizers.h"

namespace valuescope::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kNorm[] = "model.norm.weight";
constexpr char kHead[] = "lm_head.weight";
constexpr int64_t kVocabulary = 272;  // the tokenizer's 267 and padding

// What a case may break before it is written.
struct Parts {
  json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"num_hidden_layers", 1},
                 {"hidden_size", 8},
                 {"intermediate_size", 12},
                 {"num_attention_heads", 2},
                 {"num_key_value_heads", 1},
                 {"vocab_size", kVocabulary},
                 {"max_position_embeddings", 64},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", true},
                 {"torch_dtype", "float32"},
                 {"eos_token_id", 2}};
  json header = json::object();
  std::string data;

  Parts() {
    Add(kEmbedding, {kVocabulary, 8});
    const std::string block = "model.layers.0.";
    Add(block + "input_layernorm.weight", {8});
    Add(block + "self_attn.q_proj.weight", {8, 8});
    Add(block + "self_attn.k_proj.weight", {4, 8});
    Add(block + "self_attn.v_proj.weight", {4, 8});
    Add(block + "self_attn.o_proj.weight", {8, 8});
    Add(block + "post_attention_layernorm.weight", {8});
    Add(block + "mlp.gate_proj.weight", {12, 8});
    Add(block + "mlp.up_proj.weight", {12, 8});
    Add(block + "mlp.down_proj.weight", {8, 12});
    Add(kNorm, {8});
  }

  // A tensor of quarters behind the others.
  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    const size_t begin = data.size();
    const float quarter = 0.25f;
    for (int64_t i = 0; i < count; ++i) {
      data.append(reinterpret_cast<const char*>(&quarter), sizeof(quarter));
    }
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }

  void Set(const std::string& name, size_t index, float value) {
    std::memcpy(data.data() + header[name]["data_offsets"][0].get<size_t>() + index * sizeof(value),
                &value, sizeof(value));
  }

  std::string WeightFile() const { return Safetensors(header.dump(), data); }
};

std::string FileWithLength(uint64_t length, const std::string& rest) {
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + rest;
}

// A root with one good model and a neighbour that is no model of it.
class Root {
 public:
  Root() {
    fs::create_directory(root_ / "models");
    fs::create_directory(model());
    fs::create_directory(root_ / "outside");
    WriteParts(Parts());
    Write("tokenizer.json", text::ByteLevelTokenizer());
    Write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "{{ messages }}"})");
    Write("generation_config.json", R"({"eos_token_id": [264]})");
  }

  fs::path models() const { return root_ / "models"; }
  fs::path model() const { return root_ / "models" / "tiny"; }
  fs::path outside() const { return root_ / "outside"; }

  void Write(const std::string& name, absl::string_view bytes) const {
    root_.Write("models/tiny/" + name, bytes);
  }
  void WriteParts(const Parts& parts) const {
    Write("config.json", parts.config.dump());
    Write("model.safetensors", parts.WeightFile());
  }
  void Remove(const std::string& name) const { fs::remove(model() / name); }

  // The file lies outside, a link to it inside.
  void LinkOutside(const std::string& name) const {
    fs::rename(model() / name, outside() / name);
    fs::create_symlink(outside() / name, model() / name);
  }
  void MakeFifo(const std::string& name) const {
    fs::remove(model() / name);
    ASSERT_EQ(mkfifo((model() / name).c_str(), 0600), 0);
  }
  void MakeFolder(const std::string& name) const {
    fs::remove(model() / name);
    fs::create_directory(model() / name);
  }

  // Two shards by an index; `index` may be broken before it is written.
  void Shard(const std::function<void(json&)>& breaks) const {
    const Parts parts;
    json headers[2] = {json::object(), json::object()};
    std::string data[2];
    json map = json::object();
    for (const auto& [name, entry] : parts.header.items()) {
      const int shard = name == kNorm ? 1 : 0;
      const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
      json moved = entry;
      moved["data_offsets"] = {data[shard].size(), data[shard].size() + end - begin};
      headers[shard][name] = moved;
      data[shard] += parts.data.substr(begin, end - begin);
      map[name] = shard == 0 ? "a.safetensors" : "b.safetensors";
    }
    Write("a.safetensors", Safetensors(headers[0].dump(), data[0]));
    Write("b.safetensors", Safetensors(headers[1].dump(), data[1]));
    Remove("model.safetensors");
    json index = {{"metadata", json::object()}, {"weight_map", map}};
    breaks(index);
    Write(kIndex, index.dump());
  }

  // What the server says when it is asked to load the model: OK, or why not.
  absl::Status Load(const std::string& id = "tiny") const {
    const auto registry = engine::ModelRegistry::Create(
        models().string(), {.threads = 1, .kv_cache_bytes = 1 << 20, .max_batch_rows = 2});
    const absl::Status started = registry->StartLoading(id);
    if (!started.ok()) return started;
    registry->WaitUntilSettled();
    const absl::StatusOr<engine::ModelEntry> entry = registry->Find(id);
    if (!entry.ok()) return entry.status();
    registry->Drain(absl::Now());
    return entry->error;
  }

  std::string path() const { return root_.path(); }

 private:
  ModelFolder root_;
};

struct Case {
  std::string name;
  std::function<void(const Root&)> breaks;
  std::string says;  // part of the refusal
};

Case InConfig(const std::string& name, const std::function<void(json&)>& breaks,
              const std::string& says) {
  return {name,
          [breaks](const Root& root) {
            Parts parts;
            breaks(parts.config);
            root.WriteParts(parts);
          },
          says};
}

Case WithKey(const std::string& name, const std::string& key, const json& value,
             const std::string& says) {
  return InConfig(
      name, [=](json& config) { config[key] = value; }, says);
}

Case InWeights(const std::string& name, const std::function<void(Parts&)>& breaks,
               const std::string& says) {
  return {name,
          [breaks](const Root& root) {
            Parts parts;
            breaks(parts);
            root.WriteParts(parts);
          },
          says};
}

Case InHeader(const std::string& name, const std::string& tensor, const std::string& key,
              const json& value, const std::string& says) {
  return InWeights(
      name, [=](Parts& parts) { parts.header[tensor][key] = value; }, says);
}

Case WithoutKey(const std::string& tensor, const std::string& key) {
  return InWeights(
      "entry_without_" + key, [=](Parts& parts) { parts.header[tensor].erase(key); },
      absl::StrCat("tensor \"", tensor, "\" lacks ", key));
}

Case WithFile(const std::string& name, const std::string& file, const std::string& bytes,
              const std::string& says) {
  return {name, [=](const Root& root) { root.Write(file, bytes); }, says};
}

Case InIndex(const std::string& name, const std::function<void(json&)>& breaks,
             const std::string& says) {
  return {name, [breaks](const Root& root) { root.Shard(breaks); }, says};
}

// An index without model.safetensors, which would be read in its place.
Case WithIndex(const std::string& name, const std::string& bytes, const std::string& says) {
  return {name,
          [=](const Root& root) {
            root.Remove("model.safetensors");
            root.Write(kIndex, bytes);
          },
          says};
}

// The good config.json, in which a piece of text is another.
Case InConfigText(const std::string& name, const std::string& piece, const std::string& other,
                  const std::string& says) {
  return {name,
          [=](const Root& root) {
            std::string text = Parts().config.dump();
            text.replace(text.find(piece), piece.size(), other);
            root.Write("config.json", text);
          },
          says};
}

std::string Nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

// A header that lists a million tensors without bytes.
std::string MillionTensors() {
  std::string header = "{";
  for (int i = 0; i < 1'000'000; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",", "\"t", i,
                    "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}");
  }
  return Safetensors(header + "}", "");
}

std::vector<Case> FolderCases() {
  return {
      {"model_folder_is_a_link_out_of_the_root",
       [](const Root& root) {
         fs::rename(root.model(), root.outside() / "tiny");
         fs::create_directory_symlink(root.outside() / "tiny", root.model());
       },
       "leads out of"},
      {"model_folder_missing", [](const Root& root) { fs::remove_all(root.model()); },
       "`models/tiny` does not exist"},
      {"model_folder_is_a_file",
       [](const Root& root) {
         fs::remove_all(root.model());
         std::ofstream(root.model()) << "x";
       },
       "is not a folder"},
      {"config_missing", [](const Root& root) { root.Remove("config.json"); }, "no config.json"},
      {"config_is_a_fifo", [](const Root& root) { root.MakeFifo("config.json"); },
       "config.json is not a regular file"},
      {"config_linked_outside", [](const Root& root) { root.LinkOutside("config.json"); },
       "config.json"},
      {"weights_linked_outside", [](const Root& root) { root.LinkOutside("model.safetensors"); },
       "model.safetensors: is a link that leads out"},
      {"index_linked_outside",
       [](const Root& root) {
         root.Shard([](json&) {});
         root.LinkOutside(kIndex);
       },
       "model.safetensors.index.json: is a link that leads out"},
      {"shard_linked_outside",
       [](const Root& root) {
         root.Shard([](json&) {});
         root.LinkOutside("b.safetensors");
       },
       "b.safetensors: is a link that leads out"},
      {"tokenizer_linked_outside", [](const Root& root) { root.LinkOutside("tokenizer.json"); },
       "`tokenizer.json`: is a link that leads out"},
      {"generation_config_linked_outside",
       [](const Root& root) { root.LinkOutside("generation_config.json"); },
       "`generation_config.json`: is a link that leads out"},
      {"weights_are_a_fifo", [](const Root& root) { root.MakeFifo("model.safetensors"); },
       "model.safetensors: is not a regular file"},
      {"index_is_a_folder",
       [](const Root& root) {
         root.Remove("model.safetensors");
         fs::create_directory(root.model() / kIndex);
       },
       "model.safetensors.index.json: is not a regular file"},
      {"tokenizer_is_a_fifo", [](const Root& root) { root.MakeFifo("tokenizer.json"); },
       "`tokenizer.json`: is not a file"},
      {"tokenizer_config_is_a_folder",
       [](const Root& root) { root.MakeFolder("tokenizer_config.json"); },
       "`tokenizer_config.json`: is not a file"},
      {"weights_missing", [](const Root& root) { root.Remove("model.safetensors"); },
       "model.safetensors is missing"},
      {"weights_of_another_kind",
       [](const Root& root) {
         fs::rename(root.model() / "model.safetensors", root.model() / "pytorch_model.bin");
       },
       "such as \"pytorch_model.bin\", is not read"},
      {"weights_of_a_variant",
       [](const Root& root) {
         fs::rename(root.model() / "model.safetensors", root.model() / "model.fp16.safetensors");
       },
       "such as \"model.fp16.safetensors\", is not read"},
      {"adapter_beside_the_weights",
       [](const Root& root) { root.Write("adapter_config.json", "{}"); },
       "adapter_config.json: is there"},
  };
}

std::vector<Case> HeaderCases() {
  const std::string file = "model.safetensors";
  const std::string good = Parts().header.dump();
  const std::string twice = "{\"w\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},";
  return {
      WithFile("weights_empty", file, "", "model.safetensors: is too short for a header"),
      WithFile("header_length_zero", file, FileWithLength(0, ""), "model.safetensors: empty"),
      WithFile("header_length_alone", file, FileWithLength(2, ""),
               "has a header of 2 bytes beyond the end of the file"),
      WithFile("header_longer_than_the_file", file, FileWithLength(1000, "{}"),
               "has a header of 1000 bytes beyond the end of the file"),
      WithFile("header_over_100_mb", file, FileWithLength(100'000'001, "{}"), "100000001 bytes"),
      WithFile("header_of_2_to_63", file, FileWithLength(uint64_t{1} << 63, "{}"),
               "9223372036854775808 bytes"),
      WithFile("header_of_all_ones", file, FileWithLength(UINT64_MAX, "{}"),
               "18446744073709551615 bytes"),
      WithFile("header_not_json", file, Safetensors("{\"w\":", ""),
               "model.safetensors: not valid JSON at byte 6"),
      WithFile("header_not_utf8", file, Safetensors("{\"\xff\xfe\":1}", ""),
               "model.safetensors: not valid JSON at byte 3"),
      WithFile("header_deep", file, Safetensors("{\"w\":" + Nested(100'000) + "}", ""),
               "model.safetensors: nested deeper than 64"),
      WithFile("header_duplicate_tensor", file,
               Safetensors(twice + twice.substr(1, twice.size() - 2) + "}", "abcd"),
               "model.safetensors: has the key \"w\" twice"),
      WithFile("header_is_an_array", file, Safetensors("[]", ""),
               "model.safetensors: has a header that is not an object"),
      WithFile("header_of_a_million_tensors", file, MillionTensors(),
               "model.safetensors: has more than 1048576 values"),
      InWeights(
          "metadata_not_strings",
          [](Parts& parts) {
            parts.header["__metadata__"] = {{"format", 1}};
          },
          "__metadata__ is not an object of strings"),
      InWeights(
          "entry_is_a_number", [](Parts& parts) { parts.header["w"] = 7; },
          "tensor \"w\" is not an object"),
      WithoutKey(kNorm, "dtype"),
      WithoutKey(kNorm, "shape"),
      WithoutKey(kNorm, "data_offsets"),
      InHeader("dtype_unknown", kNorm, "dtype", "F8_E4M3", "type that is not served: \"F8_E4M3\""),
      InHeader("dtype_is_a_number", kNorm, "dtype", 32, "type that is not served: 32"),
      InHeader("dtype_of_integers", kEmbedding, "dtype", "I32", "is int32, served are"),
      InHeader("shape_is_a_number", kNorm, "shape", 8, "malformed shape: 8"),
      InHeader("shape_negative", kNorm, "shape", {-8}, "malformed shape: [-8]"),
      InHeader("shape_fractional", kNorm, "shape", {8.5}, "malformed shape: [8.5]"),
      InHeader("shape_of_text", kNorm, "shape", {"8"}, "malformed shape: [\"8\"]"),
      InHeader("shape_of_nine_dimensions", kNorm, "shape", {1, 1, 1, 1, 1, 1, 1, 1, 8},
               "malformed shape: [1,1,1"),
      InHeader("shape_all_ones", kNorm, "shape", {UINT64_MAX}, "dimension that is too large"),
      // 2^32 * 2^32 elements would be none in 64 bits.
      InHeader("shape_product_overflows", kNorm, "shape", {1LL << 32, 1LL << 32},
               "shape that is too large"),
      InHeader("offsets_reversed", kNorm, "data_offsets", {64, 32}, "end before they begin"),
      InHeader("offsets_negative", kNorm, "data_offsets", {-32, 0}, "data_offsets: [-32,0]"),
      InHeader("offsets_fractional", kNorm, "data_offsets", {0.0, 32.0},
               "data_offsets: [0.0,32.0]"),
      InHeader("offsets_three", kNorm, "data_offsets", {0, 16, 32}, "data_offsets: [0,16,32]"),
      InHeader("offsets_beyond_the_file", kNorm, "data_offsets", {1 << 20, (1 << 20) + 32},
               "\"model.norm.weight\" lies beyond the end of the file"),
      InHeader("offsets_at_the_end_of_64_bits", "model.layers.0.input_layernorm.weight",
               "data_offsets", {UINT64_MAX - 31, UINT64_MAX},
               "input_layernorm.weight\" lies beyond the end of the file"),
      InHeader("range_is_not_the_shape", kEmbedding, "shape", {kVocabulary, 7},
               "byte range that does not match its shape"),
      InHeader("offsets_overlap", kNorm, "data_offsets", {0, 32}, "overlaps another"),
      InWeights(
          "hole",
          [](Parts& parts) {
            parts.data.append(4, '\0');
            parts.Add("behind", {1});
          },
          "has a hole before tensor \"behind\""),
      InWeights(
          "bytes_behind_the_last_tensor", [](Parts& parts) { parts.data += "tail"; },
          "has bytes behind the last tensor"),
      InWeights(
          "data_cut_off",
          [](Parts& parts) {
            parts.Add("last", {2});
            parts.data.resize(parts.data.size() - 1);
          },
          "tensor \"last\" lies beyond the end of the file"),
      InWeights(
          "name_too_long", [](Parts& parts) { parts.Add(std::string(1025, 'n'), {1}); },
          "has a tensor name over 1024 bytes"),
  };
}

std::vector<Case> WeightCases() {
  return {
      InWeights(
          "tensor_of_another_shape",
          [](Parts& parts) {
            parts.header[kEmbedding]["shape"] = {8, kVocabulary};
          },
          "tensor \"model.embed_tokens.weight\" has the shape [8, 272], config.json asks for "
          "[272, 8]"),
      InWeights(
          "tensor_missing",
          [](Parts& parts) {
            parts.header["another.weight"] = parts.header[kNorm];
            parts.header.erase(kNorm);
          },
          "tensor \"model.norm.weight\" is missing"),
      InWeights(
          "tensor_unknown",
          [](Parts& parts) {
            parts.Add("adapter.weight", {2, 8});
          },
          "tensor \"adapter.weight\" is unknown"),
      InWeights(
          "tensor_under_two_names", [](Parts& parts) { parts.Add("norm.weight", {8}); },
          "tensor \"model.norm.weight\" is there twice"),
      InWeights(
          "tied_model_with_another_head",
          [](Parts& parts) {
            parts.Add(kHead, {kVocabulary, 8});
            parts.Set(kHead, 9, 7.0f);
          },
          "tensor \"lm_head.weight\" differs from the embedding"),
      InWeights(
          "tied_model_with_a_head_of_another_shape",
          [](Parts& parts) {
            parts.Add(kHead, {8, kVocabulary});
          },
          "tensor \"lm_head.weight\" has another shape or type than the embedding"),
      WithKey("untied_model_without_a_head", "tie_word_embeddings", false,
              "tensor \"lm_head.weight\" is missing"),
      InWeights(
          "weight_not_a_number",
          [](Parts& parts) { parts.Set(kNorm, 3, std::numeric_limits<float>::quiet_NaN()); },
          "tensor \"model.norm.weight\" holds a value that is not finite"),
      InWeights(
          "weight_infinite",
          [](Parts& parts) { parts.Set(kEmbedding, 5, -std::numeric_limits<float>::infinity()); },
          "tensor \"model.embed_tokens.weight\" holds a value that is not finite"),
  };
}

std::vector<Case> IndexCases() {
  const auto naming = [](const std::string& file) {
    return [file](json& index) { index["weight_map"][kNorm] = file; };
  };
  return {
      WithIndex("index_empty", "", "model.safetensors.index.json: empty"),
      WithIndex("index_deep", Nested(100'000),
                "model.safetensors.index.json: nested deeper than 64"),
      WithIndex("index_without_a_map", "{}", "has no weight_map"),
      WithIndex("index_of_nothing", "{\"weight_map\":{}}", "names no files"),
      WithIndex("index_with_a_key_twice",
                "{\"weight_map\":{\"w\":\"a.safetensors\",\"w\":\"b.safetensors\"}}",
                "model.safetensors.index.json: has the key \"w\" twice"),
      InIndex("shard_above", naming("../outside/b.safetensors"), "\"../outside/b.safetensors\""),
      InIndex("shard_absolute", naming("/b.safetensors"), "\"/b.safetensors\""),
      InIndex("shard_nested", naming("deep/b.safetensors"), "\"deep/b.safetensors\""),
      InIndex("shard_of_another_kind", naming("b.bin"), "\"b.bin\""),
      InIndex("shard_hidden", naming(".b.safetensors"), "\".b.safetensors\""),
      InIndex(
          "shard_not_text", [](json& index) { index["weight_map"][kNorm] = {"b.safetensors"}; },
          "tensor \"model.norm.weight\" has a file name that is not a string"),
      InIndex("shard_missing", naming("gone.safetensors"), "gone.safetensors is missing"),
      InIndex("shard_lacks_the_tensor", naming("a.safetensors"),
              "tensor \"model.norm.weight\" is not in a.safetensors"),
      InIndex(
          "index_names_an_unknown_tensor",
          [](json& index) { index["weight_map"]["score.weight"] = "b.safetensors"; },
          "tensor \"score.weight\" is not in b.safetensors"),
      {"tensor_in_two_shards",
       [](const Root& root) {
         root.Shard([](json& index) { index["weight_map"]["more"] = "c.safetensors"; });
         Parts both;
         both.header = json::object();
         both.data.clear();
         both.Add(kNorm, {8});
         both.Add("more", {1});
         root.Write("c.safetensors", both.WeightFile());
       },
       "tensor \"model.norm.weight\" is in two files"},
  };
}

std::vector<Case> ConfigCases() {
  const std::string file = "config.json";
  const int64_t huge = int64_t{1} << 40;
  return {
      WithFile("config_empty", file, "", "config.json"),
      WithFile("config_array", file, "[]", "config.json"),
      WithFile("config_deep", file, "{\"a\":" + Nested(100'000) + "}", "config.json"),
      InConfigText("config_key_twice", "\"hidden_size\":8", "\"hidden_size\":8,\"hidden_size\":16",
                   "config.json asks for [272, 16]"),
      InConfigText("config_with_a_byte_order_mark", "{", "\xef\xbb\xbf{",
                   "`config.json`: begins with a byte order mark"),
      InConfigText("config_with_half_a_character", "\"silu\"", "\"\\ud83d\"",
                   "half a surrogate pair"),
      WithFile("config_cut_off", file, "{\"vocab_size\":", "config.json"),
      InConfigText("config_with_nan", "\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":NaN",
                   "\"rms_norm_eps\" is not a number"),
      InConfigText("config_with_a_number_beyond_doubles", "\"rope_theta\":10000.0",
                   "\"rope_theta\":1e999", "\"rope_theta\" is not a number"),
      WithFile("config_over_its_size", file, "{}" + std::string(2 << 20, ' '), "config.json"),
      WithKey("family_unknown", "model_type", "gpt2", "\"model_type\" is \"gpt2\""),
      WithKey("family_a_list", "model_type", {"llama"}, "\"model_type\" is not a string"),
      InConfig(
          "family_missing", [](json& config) { config.erase("model_type"); },
          "\"model_type\" is missing"),
      WithKey("two_architectures", "architectures", {"LlamaForCausalLM", "QwenForCausalLM"},
              "\"architectures\""),
      WithKey("architecture_without_a_head", "architectures", {"LlamaForSequenceClassification"},
              "LlamaForSequenceClassification"),
      WithKey("hidden_size_zero", "hidden_size", 0, "\"hidden_size\" is 0"),
      WithKey("hidden_size_negative", "hidden_size", -8, "\"hidden_size\" is -8"),
      WithKey("hidden_size_2_to_31", "hidden_size", int64_t{1} << 31,
              "\"hidden_size\" is 2147483648"),
      WithKey("hidden_size_all_ones", "hidden_size", UINT64_MAX,
              "\"hidden_size\" is 18446744073709551615"),
      WithKey("hidden_size_text", "hidden_size", "8", "\"hidden_size\" is not an integer"),
      WithKey("intermediate_fractional", "intermediate_size", 12.5,
              "\"intermediate_size\" is not an integer"),
      InConfig(
          "intermediate_missing", [](json& config) { config.erase("intermediate_size"); },
          "\"intermediate_size\" is missing"),
      WithKey("a_billion_layers", "num_hidden_layers", 1'000'000'000,
              "\"num_hidden_layers\" is 1000000000"),
      WithKey("vocabulary_huge", "vocab_size", huge, "\"vocab_size\" is 1099511627776"),
      WithKey("positions_huge", "max_position_embeddings", huge,
              "\"max_position_embeddings\" is 1099511627776"),
      // Within the limit of a dimension, but its rotations would take gigabytes.
      InConfig(
          "positions_that_need_gigabytes",
          [](json& config) {
            config["max_position_embeddings"] = 1 << 24;
            config["head_dim"] = 4096;
          },
          "\"max_position_embeddings\" is 16777216"),
      WithKey("heads_that_do_not_divide", "num_attention_heads", 3, "\"num_attention_heads\""),
      WithKey("key_value_heads_that_do_not_divide", "num_key_value_heads", 3,
              "\"num_key_value_heads\" does not divide"),
      WithKey("key_value_heads_zero", "num_key_value_heads", 0, "\"num_key_value_heads\" is 0"),
      WithKey("head_dim_odd", "head_dim", 3, "\"head_dim\" is odd"),
      InConfig(
          "head_dim_by_default_too_large",
          [](json& config) {
            config["hidden_size"] = 1 << 20;
            config["num_attention_heads"] = config["num_key_value_heads"] = 1;
          },
          "\"head_dim\" is 1048576"),
      // Every dimension is allowed; their product is not a number of 64 bits.
      InConfig(
          "more_bytes_than_numbers",
          [](json& config) {
            config["num_hidden_layers"] = 1024;
            for (const char* key : {"hidden_size", "intermediate_size", "num_attention_heads",
                                    "num_key_value_heads", "vocab_size"}) {
              config[key] = 1 << 24;
            }
            config["head_dim"] = 4096;
          },
          "the model needs about"),
      WithKey("epsilon_zero", "rms_norm_eps", 0, "\"rms_norm_eps\" must be"),
      WithKey("theta_negative", "rope_theta", -1, "\"rope_theta\" must be"),
      WithKey("activation_unknown", "hidden_act", "relu", "\"hidden_act\" is not \"silu\""),
      WithKey("rope_scaling_unknown", "rope_scaling", {{"type", "yarn"}, {"factor", 2}},
              "\"rope_scaling\" asks for"),
      WithKey("rope_scaling_text", "rope_scaling", "linear", "\"rope_scaling\" is not an object"),
      WithKey("quantised", "quantization_config", {{"bits", 4}}, "\"quantization_config\""),
      WithKey("tied_text", "tie_word_embeddings", "yes", "\"tie_word_embeddings\""),
      WithKey("dtype_of_config_unknown", "torch_dtype", "int8", "\"torch_dtype\""),
      WithKey("rope_of_two_kinds_of_layers", "rope_parameters",
              {{"full_attention", {{"rope_theta", 1.0}}}}, "\"rope_parameters\" holds an object"),
      WithKey("rope_type_null", "rope_scaling", {{"rope_type", nullptr}},
              "\"rope_scaling\" has a rope_type that is no text"),
      WithKey("theta_null", "rope_theta", nullptr, "\"rope_theta\" is null"),
      WithKey("partial_rotary", "partial_rotary_factor", 0.5, "\"partial_rotary_factor\" is not 1"),
      WithKey("weights_named_elsewhere", "transformers_weights", "other.safetensors",
              "\"transformers_weights\" names another weight file"),
      WithKey("end_that_is_text", "eos_token_id", "</s>", "\"eos_token_id\" is not"),
  };
}

// The tokenizer's file with one thing changed.
Case InTokenizer(const std::string& name, const std::function<void(json&)>& breaks,
                 const std::string& says) {
  return {name,
          [breaks](const Root& root) {
            json tokenizer = json::parse(text::ByteLevelTokenizer());
            breaks(tokenizer);
            root.Write("tokenizer.json", tokenizer.dump());
          },
          says};
}

std::vector<Case> TextCases() {
  return {
      {"tokenizer_missing", [](const Root& root) { root.Remove("tokenizer.json"); },
       "`tokenizer.json`: is missing"},
      WithFile("tokenizer_empty", "tokenizer.json", "", "`tokenizer.json`"),
      WithFile("tokenizer_junk", "tokenizer.json", "\x89PNG\r\n\x1a\n", "`tokenizer.json`"),
      WithFile("tokenizer_deep", "tokenizer.json", Nested(1'000'000), "`tokenizer.json`"),
      WithFile("tokenizer_without_a_model", "tokenizer.json", "{\"version\":\"1.0\"}",
               "`tokenizer.json`"),
      InTokenizer(
          "two_tokens_with_one_id",
          [](json& tokenizer) { tokenizer["model"]["vocab"]["another"] = 5; },
          "two tokens have the id 5"),
      WithFile("tokenizer_config_junk", "tokenizer_config.json", "{]", "`tokenizer_config.json`"),
      WithFile("tokenizer_config_token_twice", "tokenizer_config.json",
               "{\"bos_token\":\"<s>\",\"bos_token\":7}",
               "tokenizer_config.json.bos_token`: is neither text nor"),
      WithFile("tokenizer_config_splits_in_words", "tokenizer_config.json",
               "{\"split_special_tokens\":\"yes\"}",
               "tokenizer_config.json.split_special_tokens`: is not true or false"),
      WithFile("tokenizers_by_version", "tokenizer_config.json",
               "{\"fast_tokenizer_files\":[\"tokenizer.json\",\"tokenizer.5.0.0.json\"]}",
               "names tokenizers by version"),
      WithFile("added_tokens_an_array", "added_tokens.json", "[]",
               "`added_tokens.json`: is not a JSON object"),
      WithFile("added_tokens_without_ids", "added_tokens.json", "{\"<x>\":\"9\"}",
               "`added_tokens.json`: has a token whose id"),
      WithFile("special_tokens_map_junk", "special_tokens_map.json", "{]",
               "`special_tokens_map.json`: not valid JSON"),
      WithFile("special_tokens_map_of_numbers", "special_tokens_map.json", "{\"eos_token\":2}",
               "special_tokens_map.json.eos_token`: is neither text nor"),
      WithFile("tokenizer_config_deep", "tokenizer_config.json",
               "{\"a\":" + Nested(1'000'000) + "}",
               "`tokenizer_config.json`: nested deeper than 64"),
      WithFile("generation_config_array", "generation_config.json", "[2]",
               "`generation_config.json`: is not a JSON object"),
      WithFile("generation_config_end_negative", "generation_config.json", "{\"eos_token_id\":-1}",
               "generation_config.json.eos_token_id"),
  };
}

std::vector<Case> AllCases() {
  std::vector<Case> all;
  for (const auto& cases :
       {FolderCases(), HeaderCases(), WeightCases(), IndexCases(), ConfigCases(), TextCases()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

int64_t PeakKilobytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(HostileFolders, TheFolderThatTheCasesBreakLoads) {
  EXPECT_EQ(Root().Load(), absl::OkStatus());
  const Root sharded;
  sharded.Shard([](json&) {});
  EXPECT_EQ(sharded.Load(), absl::OkStatus());
}

TEST(HostileFolders, EveryMistakeIsRefusedInItsOwnWordsAndTheNextFolderLoads) {
  std::map<std::string, std::string> heard;  // message and the case that got it
  for (const Case& one : AllCases()) {
    SCOPED_TRACE(one.name);
    const Root root;
    one.breaks(root);
    const int64_t before = PeakKilobytes();
    const absl::Status status = root.Load();
    EXPECT_LT(PeakKilobytes() - before, int64_t{1} << 20) << "took a gigabyte";
    EXPECT_FALSE(status.ok());
    EXPECT_TRUE(absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
                absl::IsResourceExhausted(status))
        << status;
    const std::string message(status.message());
    EXPECT_THAT(message, HasSubstr(one.says));
    EXPECT_THAT(message, Not(HasSubstr(root.path())));
    EXPECT_THAT(message, Not(HasSubstr("\n")));
    EXPECT_LT(message.size(), 500u);
    const auto [earlier, is_new] = heard.emplace(message, one.name);
    EXPECT_TRUE(is_new) << "also said to " << earlier->second << ": " << message;
  }
  EXPECT_EQ(Root().Load(), absl::OkStatus());
}

// A model without a usable chat template still completes text, so it loads; its chats say why not.
TEST(HostileFolders, ABrokenChatTemplateIsToldToThoseWhoChat) {
  std::set<std::string> heard;
  for (const auto& [chat_template, says] : std::vector<std::pair<json, std::string>>{
           {7, "tokenizer_config.json.chat_template"},
           {"{% if %}", "the model's chat template is unusable"},
           {"{{ messages", "the model's chat template is unusable"},
           {std::string((1 << 20) + 1, 'x'), "at most 1048576 are allowed"},
           {json::array(), "has no chat template"}}) {
    const Root root;
    root.Write("tokenizer_config.json", json{{"chat_template", chat_template}}.dump());
    EXPECT_EQ(root.Load(), absl::OkStatus());
    const auto text = text::TextModel::Load(root.model().string());
    ASSERT_TRUE(text.ok()) << text.status();
    const absl::Status status = (*text)->EncodeChat({{"user", "hello"}}, {}).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_TRUE(heard.insert(std::string(status.message())).second) << status;
    EXPECT_TRUE((*text)->EncodeText("hello").ok());
  }
}

TEST(HostileFolders, AnIdThatIsNoNameIsRefusedBeforeAPathIsMade) {
  const Root root;
  for (const char* id : {"../tiny", "tiny/..", "tiny/../tiny", "./tiny", "/etc", "", "..",
                         "outside/../tiny", "tiny\n", "-tiny"}) {
    const absl::Status status = root.Load(id);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << id;
    EXPECT_THAT(std::string(status.message()), HasSubstr("`model`")) << id;
  }
  EXPECT_EQ(root.Load(), absl::OkStatus());
}

}  // namespace
}  // namespace valuescope::model

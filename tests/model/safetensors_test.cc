// Weight files are hostile until proven otherwise: every malformed file is refused with a message
// that says what is wrong with which tensor, and nothing outside the folder is opened.
#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "model/weights.h"

namespace valuescope::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Length(uint64_t length) {
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes;
}

std::string File(const std::string& header, size_t data_bytes) {
  return Length(header.size()) + header + std::string(data_bytes, 'x');
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

TEST(ParseSafetensors, ReadsTensorsInAnyOrderWithMetadataAndPadding) {
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"}," + Entry("b", "F32", "[2,3]", "[4,28]") + "," +
      Entry("a", "BF16", "[2]", "[0,4]") + "," + Entry("scalar", "F64", "[]", "[28,36]") + "," +
      Entry("empty", "I64", "[0,7]", "[36,36]") + "}   ";
  std::string bytes = File(header, 0);
  for (char c = 0; c < 36; ++c) bytes.push_back(c);
  const auto tensors = ParseSafetensors("model.safetensors", bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 4u);
  EXPECT_EQ(tensors->at("a").dtype, DType::kBFloat16);
  EXPECT_EQ(tensors->at("a").bytes, absl::string_view("\0\1\2\3", 4));
  EXPECT_EQ(tensors->at("b").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors->at("b").bytes.size(), 24u);
  EXPECT_EQ(tensors->at("b").bytes[0], 4);
  EXPECT_TRUE(tensors->at("scalar").shape.empty());
  EXPECT_TRUE(tensors->at("empty").bytes.empty());
}

TEST(ParseSafetensors, ReadsAFileWithoutTensors) {
  const auto tensors = ParseSafetensors("model.safetensors", File("{}", 0));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(tensors->empty());
}

struct Hostile {
  const char* name;
  std::string bytes;
  const char* said;
};

class HostileFile : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileFile, IsRefusedWithItsReason) {
  const auto tensors = ParseSafetensors("shard.safetensors", GetParam().bytes);
  ASSERT_FALSE(tensors.ok());
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(tensors.status()).reason, "MALFORMED_MODEL_FILE");
  EXPECT_THAT(std::string(tensors.status().message()), HasSubstr("shard.safetensors: "));
  EXPECT_THAT(std::string(tensors.status().message()), HasSubstr(GetParam().said));
}

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_bytes) {
  return File("{" + Entry("w", dtype, shape, offsets) + "}", data_bytes);
}

std::string Two(const std::string& first, const std::string& second, size_t data_bytes) {
  return File("{" + Entry("a", "F32", "[2]", first) + "," + Entry("b", "F32", "[2]", second) + "}",
              data_bytes);
}

std::string Repeated(const std::string& piece, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += piece;
  return result;
}

INSTANTIATE_TEST_SUITE_P(
    Everything, HostileFile,
    ::testing::Values(
        Hostile{"Empty", "", "is too short for a header"},
        Hostile{"CutInTheLength", "\x08\0\0\0", "is too short for a header"},
        Hostile{"HeaderBeyondTheFile", Length(100) + "{}",
                "has a header of 100 bytes beyond the end"},
        Hostile{"HeaderOverTheLimit", Length(100'000'001) + "{}", "has a header over 100 MB"},
        Hostile{"HeaderLengthWrapsAround", Length(UINT64_MAX) + "{}", "has a header over 100 MB"},
        Hostile{"NoHeader", Length(0), "not valid JSON"},
        Hostile{"HeaderIsNoJson", File("{\"w\":", 0), "not valid JSON"},
        Hostile{"HeaderIsNoText", File("{\"\xff\xfe\":1}", 0), "not valid JSON"},
        Hostile{"HeaderHasATail", File("{}{}", 0), "not valid JSON"},
        Hostile{"HeaderIsAnArray", File("[]", 0), "has a header that is not an object"},
        Hostile{"DeepArrays", File("{\"w\":" + std::string(100'000, '[') + "}", 0),
                "nested deeper than 64"},
        Hostile{"DeepObjects",
                File(Repeated("{\"w\":", 100'000) + "1" + std::string(100'000, '}'), 0),
                "nested deeper than 64"},
        Hostile{"NameTwice",
                File("{" + Entry("w", "F32", "[1]", "[0,4]") + "," +
                         Entry("w", "F32", "[1]", "[4,8]") + "}",
                     8),
                "has the key \"w\" twice"},
        Hostile{"KeyTwiceInAnEntry",
                File("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[2],"
                     "\"data_offsets\":[0,4]}}",
                     4),
                "has the key \"shape\" twice"},
        Hostile{"NameTooLong",
                File("{" + Entry(std::string(1025, 'n'), "F32", "[1]", "[0,4]") + "}", 4),
                "has a tensor name over 1024 bytes"},
        Hostile{"EntryIsNoObject", File("{\"w\":7}", 0), "tensor \"w\" is not an object"},
        Hostile{"EntryLacksOffsets", File("{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4),
                "tensor \"w\" lacks data_offsets"},
        Hostile{"UnknownType", One("F8_E4M3", "[4]", "[0,4]", 4),
                "tensor \"w\" has a type that is not served"},
        Hostile{"TypeIsANumber",
                File("{\"w\":{\"dtype\":32,\"shape\":[],\"data_offsets\":[0,4]}}", 4),
                "tensor \"w\" has a type that is not served"},
        Hostile{"ShapeIsNoArray", One("F32", "1", "[0,4]", 4),
                "tensor \"w\" has a malformed shape"},
        Hostile{"NegativeDimension", One("F32", "[-1]", "[0,4]", 4),
                "tensor \"w\" has a malformed shape"},
        Hostile{"FractionalDimension", One("F32", "[1.0]", "[0,4]", 4),
                "tensor \"w\" has a malformed shape"},
        Hostile{"DimensionBeyond64Bits", One("F32", "[18446744073709551616]", "[0,4]", 4),
                "tensor \"w\" has a malformed shape"},
        Hostile{"TooManyDimensions", One("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4),
                "tensor \"w\" has a malformed shape"},
        Hostile{"HugeDimension", One("F32", "[18446744073709551615]", "[0,4]", 4),
                "tensor \"w\" has a dimension that is too large"},
        // 2^32 * 2^32 elements would be none in 64 bits.
        Hostile{"ShapeOverflows", One("F32", "[4294967296,4294967296]", "[0,0]", 0),
                "tensor \"w\" has a shape that is too large"},
        Hostile{"ShapeIsNotTheRange", One("F32", "[3]", "[0,8]", 8),
                "tensor \"w\" has a byte range that does not match its shape"},
        Hostile{"OneOffset", One("F32", "[1]", "[4]", 4),
                "tensor \"w\" has malformed data_offsets"},
        Hostile{"NegativeOffsets", One("F32", "[1]", "[-4,0]", 4),
                "tensor \"w\" has malformed data_offsets"},
        Hostile{"OffsetsAsText", One("F32", "[1]", "[\"0\",\"4\"]", 4),
                "tensor \"w\" has malformed data_offsets"},
        Hostile{"ReversedOffsets", One("F32", "[1]", "[4,0]", 4),
                "tensor \"w\" has data_offsets that end before they begin"},
        Hostile{"TruncatedData", One("F32", "[2]", "[0,8]", 7),
                "tensor \"w\" lies beyond the end of the file"},
        Hostile{"OffsetsBeyondTheEnd", One("F32", "[1]", "[1000,1004]", 4),
                "tensor \"w\" lies beyond the end of the file"},
        Hostile{"OffsetsAtTheEndOf64Bits",
                One("F32", "[1]", "[18446744073709551612,18446744073709551615]", 4),
                "tensor \"w\" lies beyond the end of the file"},
        Hostile{"Overlap", Two("[0,8]", "[4,12]", 12), "tensor \"b\" overlaps another"},
        Hostile{"SameRange", Two("[0,8]", "[0,8]", 8), "overlaps another"},
        Hostile{"Hole", Two("[0,8]", "[12,20]", 20), "has a hole before tensor \"b\""},
        Hostile{"HoleAtTheBeginning", One("F32", "[1]", "[4,8]", 8),
                "has a hole before tensor \"w\""},
        Hostile{"TrailingBytes", One("F32", "[1]", "[0,4]", 5), "has bytes behind the last tensor"},
        Hostile{"DataWithoutTensors", File("{}", 1), "has bytes behind the last tensor"}),
    [](const auto& info) { return std::string(info.param.name); });

// An architecture of no blocks worth mentioning: its table is small enough to write by hand.
Architecture Tiny() {
  Architecture a;
  a.family = "llama";
  a.num_layers = 0;
  a.hidden = 2;
  a.vocabulary = 3;
  a.tied_embeddings = true;
  return a;
}

const char kEmbedding[] = "model.embed_tokens.weight";
const char kNorm[] = "model.norm.weight";

class ModelFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    base_ = fs::path(::testing::TempDir()) /
            ("safetensors_test_" + std::to_string(getpid()) + "_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(base_);
    fs::create_directories(base_ / "model");
    fs::create_directories(base_ / "model-elsewhere");
  }
  void TearDown() override { fs::remove_all(base_); }

  std::string folder() const { return (base_ / "model").string(); }

  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(base_ / "model" / name, std::ios::binary) << bytes;
  }

  void WriteIndex(const std::string& map) {
    Write("model.safetensors.index.json", "{\"weight_map\":" + map + "}");
  }

  // What opening the folder's weights says, which never is the folder's own path.
  std::string Refusal(absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = StoredWeights::Open(folder(), Tiny()).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(base_.string())));
    return std::string(status.message());
  }

  fs::path base_;
};

std::string EmbeddingFile() {
  return File("{" + Entry(kEmbedding, "F32", "[3,2]", "[0,24]") + "}", 24);
}
std::string NormFile() { return File("{" + Entry(kNorm, "F16", "[2]", "[0,4]") + "}", 4); }
std::string BothFile() {
  return File("{" + Entry(kEmbedding, "F32", "[3,2]", "[0,24]") + "," +
                  Entry(kNorm, "F16", "[2]", "[24,28]") + "}",
              28);
}

TEST_F(ModelFolder, OpensOneFile) {
  Write("model.safetensors", BothFile());
  EXPECT_TRUE(StoredWeights::Open(folder(), Tiny()).ok());
}

TEST_F(ModelFolder, OpensTheShardsOfTheIndexInNameOrder) {
  Write("b.safetensors", EmbeddingFile());
  Write("a.safetensors", NormFile());
  Write("c.safetensors", "not named, not read");
  WriteIndex("{\"" + std::string(kEmbedding) + "\":\"b.safetensors\",\"" + kNorm +
             "\":\"a.safetensors\"}");
  const auto files = WeightFiles(folder());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(*files, (std::map<std::string, std::set<std::string>>{
                        {"a.safetensors", {kNorm}}, {"b.safetensors", {kEmbedding}}}));
  EXPECT_TRUE(StoredWeights::Open(folder(), Tiny()).ok());
}

TEST_F(ModelFolder, FollowsLinksThatStayInside) {
  Write("weights.bin", BothFile());
  fs::create_symlink("weights.bin", base_ / "model" / "model.safetensors");
  EXPECT_TRUE(StoredWeights::Open(folder(), Tiny()).ok());
}

TEST_F(ModelFolder, SaysWhichFileIsMissing) {
  EXPECT_THAT(Refusal(absl::StatusCode::kNotFound), HasSubstr("model.safetensors is missing"));
  Write("a.safetensors", NormFile());
  WriteIndex("{\"model.norm.weight\":\"a.safetensors\",\"y\":\"gone.safetensors\"}");
  EXPECT_THAT(Refusal(absl::StatusCode::kNotFound), HasSubstr("gone.safetensors is missing"));
}

TEST_F(ModelFolder, RefusesLinksOutOfTheFolder) {
  std::ofstream(base_ / "outside.safetensors", std::ios::binary) << BothFile();
  fs::create_symlink("../outside.safetensors", base_ / "model" / "model.safetensors");
  EXPECT_THAT(Refusal(), HasSubstr("is a link that leads out"));
}

TEST_F(ModelFolder, RefusesLinksToAFolderWhoseNameBeginsTheSame) {
  std::ofstream(base_ / "model-elsewhere" / "w.safetensors", std::ios::binary) << BothFile();
  fs::create_symlink("../model-elsewhere/w.safetensors", base_ / "model" / "model.safetensors");
  EXPECT_THAT(Refusal(), HasSubstr("is a link that leads out"));
}

TEST_F(ModelFolder, TakesALinkToNowhereAsMissing) {
  fs::create_symlink("nowhere", base_ / "model" / "model.safetensors");
  EXPECT_THAT(Refusal(absl::StatusCode::kNotFound), HasSubstr("is missing"));
}

TEST_F(ModelFolder, RefusesAFifoWithoutWaitingForAWriter) {
  ASSERT_EQ(mkfifo((base_ / "model" / "model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(Refusal(), HasSubstr("is not a regular file"));
}

TEST_F(ModelFolder, RefusesAFolderAsAFile) {
  fs::create_directory(base_ / "model" / "model.safetensors");
  EXPECT_THAT(Refusal(), HasSubstr("is not a regular file"));
}

TEST_F(ModelFolder, RefusesAnEmptyFile) {
  Write("model.safetensors", "");
  EXPECT_THAT(Refusal(), HasSubstr("is too short for a header"));
}

TEST_F(ModelFolder, RefusesAnIndexThatNamesOtherPlaces) {
  std::ofstream(base_ / "outside.safetensors", std::ios::binary) << BothFile();
  for (const char* name :
       {"../outside.safetensors", "/etc/x.safetensors", "sub/a.safetensors", ".a.safetensors",
        "a.safetensors/..", "config.json", "", "a\\u0000.safetensors"}) {
    WriteIndex("{\"w\":\"" + std::string(name) + "\"}");
    EXPECT_THAT(Refusal(), HasSubstr("names a file that is not a plain .safetensors name")) << name;
  }
}

TEST_F(ModelFolder, RefusesMalformedIndexes) {
  const auto refusal = [&](const std::string& index) {
    Write("model.safetensors.index.json", index);
    return Refusal();
  };
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("has no weight_map"));
  EXPECT_THAT(refusal("{\"weight_map\":[]}"), HasSubstr("has no weight_map"));
  EXPECT_THAT(refusal("{\"weight_map\":{}}"), HasSubstr("names no files"));
  EXPECT_THAT(refusal("{\"weight_map\":{\"w\":1}}"), HasSubstr("is not a string"));
  EXPECT_THAT(refusal("{\"weight_map\":{\"w\":\"a.safetensors\",\"w\":\"b.safetensors\"}}"),
              HasSubstr("has the key \"w\" twice"));
}

TEST_F(ModelFolder, RefusesATensorInTwoFiles) {
  Write("a.safetensors", BothFile());
  Write("b.safetensors", NormFile());
  WriteIndex("{\"" + std::string(kEmbedding) + "\":\"a.safetensors\",\"" + kNorm +
             "\":\"b.safetensors\"}");
  EXPECT_THAT(Refusal(), HasSubstr("tensor \"model.norm.weight\" is in two files"));
}

TEST_F(ModelFolder, RefusesTensorsThatAreMissingUnknownOrMisshaped) {
  Write("model.safetensors", NormFile());
  EXPECT_THAT(Refusal(), HasSubstr("tensor \"model.embed_tokens.weight\" is missing"));

  Write("model.safetensors", File("{" + Entry(kEmbedding, "F32", "[2,3]", "[0,24]") + "," +
                                      Entry(kNorm, "F16", "[2]", "[24,28]") + "}",
                                  28));
  EXPECT_THAT(Refusal(), HasSubstr("has the shape [2, 3], config.json asks for [3, 2]"));

  Write("model.safetensors", File("{" + Entry(kEmbedding, "F64", "[3,2]", "[0,48]") + "," +
                                      Entry(kNorm, "F16", "[2]", "[48,52]") + "}",
                                  52));
  EXPECT_THAT(Refusal(), HasSubstr("served are float32, float16 and bfloat16"));

  Write("model.safetensors", File("{" + Entry(kEmbedding, "F32", "[3,2]", "[0,24]") + "," +
                                      Entry(kNorm, "F16", "[2]", "[24,28]") + "," +
                                      Entry("backdoor", "F16", "[2]", "[28,32]") + "}",
                                  32));
  EXPECT_THAT(Refusal(), HasSubstr("tensor \"backdoor\" is unknown"));
}

// Digest of the folder's weights, all of them read.
std::string DigestOf(const std::string& folder) {
  const auto weights = StoredWeights::Open(folder, Tiny());
  EXPECT_TRUE(weights.ok()) << weights.status();
  for (const char* name : {kEmbedding, kNorm}) EXPECT_TRUE((*weights)->Read(name).ok());
  EXPECT_EQ((*weights)->fraction_read(), 1);
  return (*weights)->Digest("{}");
}

TEST_F(ModelFolder, OneFileOfWeightsComesBeforeAnIndex) {
  Write("model.safetensors", BothFile());
  const std::string whole = DigestOf(folder());
  for (const char* index : {"{\"model.norm.weight\":\"gone.safetensors\"}", "{}", "7"}) {
    WriteIndex(index);
    const auto files = WeightFiles(folder());
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(*files, (std::map<std::string, std::set<std::string>>{{"model.safetensors", {}}}));
    EXPECT_EQ(DigestOf(folder()), whole);
  }
  // Older shards that are whole as well.
  std::string other = NormFile();
  other.back() ^= 1;
  Write("a.safetensors", other);
  Write("b.safetensors", EmbeddingFile());
  WriteIndex("{\"" + std::string(kEmbedding) + "\":\"b.safetensors\",\"" + kNorm +
             "\":\"a.safetensors\"}");
  EXPECT_EQ(DigestOf(folder()), whole);
  // A link to nowhere is no file.
  fs::remove(base_ / "model" / "model.safetensors");
  fs::create_symlink("gone", base_ / "model" / "model.safetensors");
  EXPECT_NE(DigestOf(folder()), whole);
}

TEST_F(ModelFolder, NamesTheWeightsThatItDoesNotRead) {
  for (const char* name :
       {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.fp16.safetensors",
        "model-00001-of-00002.safetensors", "consolidated.00.pth", "model.Q4_K_M.gguf"}) {
    Write(name, "x");
    EXPECT_THAT(Refusal(absl::StatusCode::kNotFound),
                HasSubstr("such as \"" + std::string(name) + "\", is not read"));
    fs::remove(base_ / "model" / name);
  }
  Write("model.safetensors", BothFile());
  Write("adapter_config.json", "{}");
  EXPECT_THAT(Refusal(), HasSubstr("merge the adapter"));
}

// One float32 embedding and one float16 norm under these names, and further ones of two numbers.
std::string Named(const std::string& embedding, const std::string& norm,
                  const std::vector<std::string>& further = {}) {
  std::string header =
      "{" + Entry(embedding, "F32", "[3,2]", "[0,24]") + "," + Entry(norm, "F16", "[2]", "[24,28]");
  int end = 28;
  for (const std::string& name : further) {
    const std::string range = "[" + std::to_string(end) + "," + std::to_string(end + 4) + "]";
    header += "," + Entry(name, "F16", "[2]", range);
    end += 4;
  }
  return File(header + "}", end);
}

TEST_F(ModelFolder, TakesTheNamesOfTheModelWithinAndOfOneAround) {
  Write("model.safetensors", Named(kEmbedding, kNorm));
  const std::string own = DigestOf(folder());
  Write("model.safetensors", Named("embed_tokens.weight", "norm.weight"));
  EXPECT_EQ(DigestOf(folder()), own);
  Write("model.safetensors", Named("model.model.embed_tokens.weight", "model.model.norm.weight"));
  EXPECT_EQ(DigestOf(folder()), own);
  // Tied, so the unembedding is the embedding.
  Write("model.safetensors", Named("lm_head.weight", kNorm));
  EXPECT_EQ(DigestOf(folder()), own);
  Write("model.safetensors", Named("model.lm_head.weight", "norm.weight"));
  EXPECT_EQ(DigestOf(folder()), own);
  Write("model.safetensors", Named(kEmbedding, kNorm, {"norm.weight"}));
  EXPECT_THAT(Refusal(), HasSubstr("\"model.norm.weight\" is there twice"));
  Architecture untied = Tiny();
  untied.tied_embeddings = false;
  Write("model.safetensors", Named("lm_head.weight", kNorm));
  EXPECT_THAT(std::string(StoredWeights::Open(folder(), untied).status().message()),
              HasSubstr("\"model.embed_tokens.weight\" is missing"));
  Write("model.safetensors", Named(kEmbedding, kNorm));
  EXPECT_THAT(std::string(StoredWeights::Open(folder(), untied).status().message()),
              HasSubstr("set \"tie_word_embeddings\" of config.json to true"));
}

TEST_F(ModelFolder, IgnoresWhatLiesBesideALanguageModel) {
  Write("model.safetensors", Named(kEmbedding, kNorm));
  const std::string own = DigestOf(folder());
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
        "rotary_emb.cos_cached", "model.layers.0.self_attn.bias",
        "model.layers.0.self_attn.masked_bias", "model.causal_mask", "model.position_ids",
        "v_head.summary.weight", "v_head.summary.bias", "value_head.weight", "score.weight",
        "score.bias", "classifier.weight", "qa_outputs.bias"}) {
    Write("model.safetensors", Named(kEmbedding, kNorm, {name}));
    EXPECT_EQ(DigestOf(folder()), own) << name;
  }
  // A part of the model that config.json does not speak of would be missing from every answer.
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "lm_head.bias", "model.layers.7.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight", "model.norm.bias",
        "model.vision_tower.weight", "model.embed_tokens.scale", "model.layers.0.score.weight"}) {
    Write("model.safetensors", Named(kEmbedding, kNorm, {name}));
    EXPECT_THAT(Refusal(), HasSubstr("tensor \"" + std::string(name) + "\" is unknown")) << name;
  }
}

TEST_F(ModelFolder, ToleratesATiedUnembeddingWrittenOutAgain) {
  Write("model.safetensors", File("{" + Entry(kEmbedding, "F32", "[3,2]", "[0,24]") + "," +
                                      Entry(kNorm, "F16", "[2]", "[24,28]") + "," +
                                      Entry("lm_head.weight", "F32", "[3,2]", "[28,52]") + "}",
                                  52));
  EXPECT_TRUE(StoredWeights::Open(folder(), Tiny()).ok());
}

TEST_F(ModelFolder, TheDigestIsOfTheTensorsWhateverFilesTheyAreIn) {
  Write("model.safetensors", BothFile());
  const std::string whole = DigestOf(folder());
  fs::remove(base_ / "model" / "model.safetensors");
  Write("b.safetensors", EmbeddingFile());
  Write("a.safetensors", NormFile());
  WriteIndex("{\"" + std::string(kEmbedding) + "\":\"b.safetensors\",\"" + kNorm +
             "\":\"a.safetensors\"}");
  EXPECT_EQ(DigestOf(folder()), whole);
  std::string other = NormFile();
  other.back() ^= 1;
  Write("a.safetensors", other);
  EXPECT_NE(DigestOf(folder()), whole);
}

TEST_F(ModelFolder, AReleasedTensorCanBeReadAgain) {
  Write("model.safetensors", BothFile());
  const auto weights = StoredWeights::Open(folder(), Tiny());
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_TRUE((*weights)->Read(kEmbedding).ok());
  const at::Tensor before = (*weights)->Get(kEmbedding, at::kFloat);
  (*weights)->Release(kEmbedding);
  const auto again = (*weights)->ReadAgain(kEmbedding, at::kFloat);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->equal(before));
}

// Wherever the cut is: at the first byte, within the header, within a tensor.
TEST_F(ModelFolder, AFileThatIsCutShortWhileItIsReadIsAnError) {
  const size_t size = BothFile().size();
  for (const size_t left : {size_t{0}, size_t{4}, size / 2, size - 5}) {
    Write("model.safetensors", BothFile());
    const auto weights = StoredWeights::Open(folder(), Tiny());
    ASSERT_TRUE(weights.ok()) << weights.status();
    fs::resize_file(base_ / "model" / "model.safetensors", left);
    EXPECT_FALSE((*weights)->CheckUnchanged().ok());
    // Between such a look and the read the file can be cut as well.
    for (const absl::Status& status :
         {(*weights)->Read(kNorm), (*weights)->ReadAgain(kNorm, at::kFloat).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << left;
      EXPECT_EQ(DetailsOf(status).reason, "MODEL_FILES_CHANGED") << left;
    }
  }
}

}  // namespace
}  // namespace valuescope::model

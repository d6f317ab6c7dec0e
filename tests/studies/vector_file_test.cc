// Files of vectors come back as what they were, to the bit, and nothing that a file says can do
// harm: what is read of a changed file is what was written, or a refusal that names the place.
#include "studies/vector_file.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "studies/gguf_file.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

using google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int kLayers = 6, kWidth = 5;

engine::ServedModel Model() {
  engine::ServedModel model;
  model.id = "tiny";
  model.weights_digest = std::string(64, 'a');
  model.architecture.num_layers = kLayers;
  model.architecture.hidden = kWidth;
  model.architecture.intermediate = 2 * kWidth;
  model.architecture.vocabulary = 11;
  return model;
}

StoredVector Vector(std::initializer_list<int> layers, v1::Site site = v1::SITE_RESIDUAL_POST) {
  StoredVector vector;
  v1::Vector& record = vector.record;
  record.set_model("models/tiny");
  record.set_model_digest(Model().weights_digest);
  record.set_site(site);
  record.set_width(static_cast<int>(model::WidthOf(vector.site(), Model().architecture)));
  record.set_display_name("a \"name\", \xc3\xbc");
  for (const int layer : layers) {
    record.add_layers(layer);
    v1::VectorStatistics& row = *record.add_statistics();
    row.set_layer(layer);
    row.set_num_expressing(12);
    row.set_norm(1.0 / (layer + 3));
    row.set_split_half_cosine(-0.1);
    row.mutable_norm_interval()->set_upper(3e21);
  }
  v1::Provenance& provenance = *record.mutable_provenance();
  provenance.set_format_version(1);
  provenance.set_model("models/tiny");
  provenance.set_judge("word list");
  provenance.add_seeds(18446744073709551615u);
  provenance.set_options(R"({"bootstrap_samples":20})");
  provenance.add_inputs()->set_name("responses");
  for (int64_t i = 0; i < vector.num_rows() * vector.width(); ++i) {
    vector.rows.push_back(static_cast<float>(i) / 7 - 1);
  }
  // What a decimal would lose.
  vector.rows[0] = -0.0f;
  vector.rows[1] = std::numeric_limits<float>::denorm_min();
  vector.rows[2] = std::nextafter(1.0f, 2.0f);
  return vector;
}

v1::ImportVectorsHeader Header(v1::VectorFormat format) {
  v1::ImportVectorsHeader header;
  header.set_format(format);
  header.set_sha256(std::string(64, 'f'));
  return header;
}

absl::StatusOr<VectorFile> Read(const v1::ImportVectorsHeader& header, const std::string& file,
                                model::Site site = model::Site::kResidualPost) {
  return ReadVectorFile(header, site, Model(), file);
}

absl::StatusOr<VectorFile> ReadSafetensors(const std::string& file) {
  return Read(Header(v1::VECTOR_FORMAT_SAFETENSORS), file);
}

absl::StatusOr<VectorFile> ReadGguf(
    const std::string& file, v1::GgufConvention convention = v1::GGUF_CONVENTION_UNSPECIFIED) {
  v1::ImportVectorsHeader header = Header(v1::VECTOR_FORMAT_GGUF);
  header.set_convention(convention);
  return Read(header, file);
}

void ExpectSame(const StoredVector& found, const StoredVector& expected) {
  EXPECT_TRUE(MessageDifferencer::Equals(found.record, expected.record))
      << found.record.DebugString();
  ASSERT_EQ(found.rows.size(), expected.rows.size());
  EXPECT_EQ(std::memcmp(found.rows.data(), expected.rows.data(), found.rows.size() * sizeof(float)),
            0);
  EXPECT_EQ(VectorDigest(found), VectorDigest(expected));
}

NamedTensor Row(std::string name, std::vector<int64_t> shape = {kWidth}) {
  HostTensor tensor = HostTensor::Zeros(DType::kFloat32, std::move(shape));
  int i = 0;
  for (float& element : tensor.MutableAs<float>()) {
    element = static_cast<float>(name.back() - '0') + static_cast<float>(++i) / 8;
  }
  return {.name = std::move(name), .tensor = std::move(tensor)};
}

// As others write it: gguf-py's count of layers is unsigned.
std::string Foreign(const std::vector<NamedTensor>& tensors, bool with_count = true) {
  std::vector<GgufPair> metadata = {{"general.architecture", "controlvector"}};
  if (with_count) {
    metadata.push_back({"controlvector.layer_count", static_cast<uint32_t>(tensors.size())});
  }
  return WriteGguf(metadata, tensors);
}

std::string ReplacedOnce(std::string file, const std::string& what, const std::string& with) {
  const size_t place = file.find(what);
  EXPECT_NE(place, std::string::npos) << what;
  EXPECT_EQ(what.size(), with.size());
  return file.replace(place, what.size(), with);
}

std::string ReasonOf(const absl::Status& status) { return DetailsOf(status).reason; }

// --- What was written comes back ---

TEST(VectorFileTest, SafetensorsGivesEveryVectorBack) {
  const std::vector<StoredVector> vectors = {Vector({0, 2, 5}), Vector({1}, v1::SITE_MLP_NEURONS),
                                             Vector({}, v1::SITE_FINAL_NORM)};
  const std::string file = WriteSafetensors(vectors);
  EXPECT_EQ(file, WriteSafetensors(vectors));
  const auto read = ReadSafetensors(file);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_THAT(read->vectors, SizeIs(3));
  for (const StoredVector& expected : vectors) {
    const auto found = std::find_if(
        read->vectors.begin(), read->vectors.end(),
        [&](const VectorInFile& one) { return one.tensors.front() == NameInFile(expected); });
    ASSERT_NE(found, read->vectors.end());
    ExpectSame(found->vector, expected);
  }
}

TEST(VectorFileTest, AControlVectorGivesItsVectorBack) {
  const StoredVector vector = Vector({1, 2, 5});
  const auto file = WriteControlVector(vector);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file, *WriteControlVector(vector));
  const auto read = ReadGguf(*file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->convention, v1::GGUF_CONVENTION_LLAMA_CPP);
  ASSERT_THAT(read->vectors, SizeIs(1));
  ExpectSame(read->vectors[0].vector, vector);
  EXPECT_THAT(read->vectors[0].tensors, ElementsAre("direction.1", "direction.2", "direction.5"));
}

TEST(VectorFileTest, AControlVectorHoldsOneDimensionalFloat32DirectionsAndNothingElse) {
  const StoredVector vector = Vector({2, 4});
  const std::string file = *WriteControlVector(vector);
  const auto parsed = ParseGguf(file);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_THAT(parsed->tensors, SizeIs(2));
  for (int row = 0; row < 2; ++row) {
    const GgufTensor& tensor =
        parsed->tensors.at(absl::StrCat("direction.", vector.record.layers(row)));
    EXPECT_EQ(tensor.dtype, DType::kFloat32);
    EXPECT_THAT(tensor.shape, ElementsAre(kWidth));
    const auto values = vector.row(row);
    EXPECT_EQ(std::memcmp(tensor.bytes.data(), values.data(), values.size_bytes()), 0);
  }
  EXPECT_EQ(parsed->metadata.at("general.architecture").bytes, "controlvector");
  EXPECT_EQ(parsed->metadata.at("controlvector.model_hint").bytes, "tiny");
}

TEST(VectorFileTest, WhatLlamaCppCannotDoIsRefusedInWords) {
  const auto first = WriteControlVector(Vector({0, 1}));
  EXPECT_EQ(ReasonOf(first.status()), "NO_LAYER_0");
  EXPECT_THAT(first.status().message(), HasSubstr("layers"));
  for (const v1::Site site : {v1::SITE_RESIDUAL_MID, v1::SITE_MLP_NEURONS}) {
    EXPECT_EQ(ReasonOf(WriteControlVector(Vector({1}, site)).status()), "WRONG_SITE");
  }
}

TEST(VectorFileTest, ChosenLayersAreAVectorOfTheirOwn) {
  const StoredVector whole = Vector({0, 2, 5});
  const std::vector<int> layers = {2, 5};
  const StoredVector chosen = WithLayers(whole, layers);
  EXPECT_THAT(chosen.record.layers(), ElementsAre(2, 5));
  EXPECT_NE(VectorDigest(chosen), VectorDigest(whole));
  const auto read = ReadGguf(*WriteControlVector(chosen));
  ASSERT_TRUE(read.ok()) << read.status();
  ExpectSame(read->vectors[0].vector, chosen);
  EXPECT_EQ(read->vectors[0].vector.record.statistics(1).layer(), 5);
}

// --- Files of others ---

TEST(VectorFileTest, TheConventionSaysWhichBlockADirectionBelongsTo) {
  const std::string file = Foreign({Row("direction.1"), Row("direction.3")}, /*with_count=*/false);
  const auto unknown = ReadGguf(file);
  EXPECT_EQ(ReasonOf(unknown.status()), "CONVENTION_NEEDED");
  EXPECT_THAT(unknown.status().message(), HasSubstr("header.convention"));
  const std::pair<v1::GgufConvention, std::vector<int>> conventions[] = {
      {v1::GGUF_CONVENTION_LLAMA_CPP, {1, 3}},
      {v1::GGUF_CONVENTION_REPENG, {1, 3}},
      {v1::GGUF_CONVENTION_CVECTOR_GENERATOR, {0, 2}}};
  for (const auto& [convention, layers] : conventions) {
    const auto read = ReadGguf(file, convention);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->convention, convention);
    EXPECT_THAT(read->vectors[0].vector.record.layers(), ::testing::ElementsAreArray(layers));
    EXPECT_THAT(read->vectors[0].tensors, ElementsAre("direction.1", "direction.3"));
    EXPECT_EQ(read->vectors[0].vector.rows[kWidth], 3.125f);
    // Where it came from is part of what it is.
    const v1::Provenance& provenance = read->vectors[0].vector.record.provenance();
    EXPECT_EQ(provenance.inputs(0).digest(), std::string(64, 'f'));
    EXPECT_THAT(provenance.options(), HasSubstr(v1::GgufConvention_Name(convention)));
  }
}

TEST(VectorFileTest, AFileThatGivesItsWriterAwayNeedsNoConvention) {
  for (const std::string& file :
       {Foreign({Row("direction.0")}, /*with_count=*/false), Foreign({Row("direction.2")})}) {
    const auto read = ReadGguf(file);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->convention, v1::GGUF_CONVENTION_REPENG);
  }
}

TEST(VectorFileTest, BlocksThatAConventionDoesNotHaveAreRefused) {
  const auto refused = [](const std::string& name, v1::GgufConvention convention) {
    const absl::Status status = ReadGguf(Foreign({Row(name)}), convention).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    return ReasonOf(status);
  };
  EXPECT_EQ(refused("direction.0", v1::GGUF_CONVENTION_LLAMA_CPP), "OUT_OF_RANGE");
  EXPECT_EQ(refused("direction.0", v1::GGUF_CONVENTION_CVECTOR_GENERATOR), "OUT_OF_RANGE");
  EXPECT_EQ(refused("direction.6", v1::GGUF_CONVENTION_REPENG), "OUT_OF_RANGE");
  EXPECT_TRUE(ReadGguf(Foreign({Row("direction.6")}), v1::GGUF_CONVENTION_CVECTOR_GENERATOR).ok());
  EXPECT_EQ(
      ReasonOf(ReadGguf(*WriteControlVector(Vector({1})), v1::GGUF_CONVENTION_CVECTOR_GENERATOR)
                   .status()),
      "INVALID_FIELD");
}

TEST(VectorFileTest, TensorsThatAreNoDirectionsOfTheModelAreRefusedByName) {
  const auto refused = [](NamedTensor tensor) {
    const std::string name = tensor.name;
    const absl::Status status = ReadGguf(Foreign({std::move(tensor), Row("direction.4")})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("`data`: tensor \"", name, "\"")));
    return ReasonOf(status);
  };
  for (const char* name : {"direction.2.mean", "direction.02", "direction.-1", "direction.",
                           "direction", "other", "direction.99999999999"}) {
    EXPECT_EQ(refused(Row(name)), "MALFORMED_FILE");
  }
  EXPECT_EQ(refused(Row("direction.2", {kWidth + 1})), "WRONG_WIDTH");
  EXPECT_EQ(refused(Row("direction.2", {kWidth, 1})), "WRONG_WIDTH");  // a column
  EXPECT_TRUE(ReadGguf(Foreign({Row("direction.2", {1, kWidth})})).ok());
  EXPECT_EQ(ReasonOf(ReadGguf(Foreign({})).status()), "MALFORMED_FILE");
}

TEST(VectorFileTest, ATensorOfOthersHasARowForEveryBlock) {
  const std::vector<NamedTensor> tensors = {Row("1", {kLayers, kWidth}),
                                            Row("2", {kLayers, kWidth})};
  const auto read = ReadSafetensors(WriteTensorFile(tensors));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_THAT(read->vectors, SizeIs(2));
  EXPECT_THAT(read->vectors[1].vector.record.layers(), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(read->vectors[1].vector.rows[0], 2.125f);
  EXPECT_EQ(read->vectors[1].tensors[3], "2");
  const std::vector<NamedTensor> other = {Row("1", {3, kWidth})};
  const absl::Status refused = ReadSafetensors(WriteTensorFile(other)).status();
  EXPECT_EQ(ReasonOf(refused), "WRONG_SHAPE");
  EXPECT_THAT(refused.message(), HasSubstr("[6, 5]"));
  const std::vector<NamedTensor> once = {Row("1", {1, 11})};
  EXPECT_TRUE(
      Read(Header(v1::VECTOR_FORMAT_SAFETENSORS), WriteTensorFile(once), model::Site::kLogits)
          .ok());
  const int64_t whole[] = {1, 2};
  const std::vector<NamedTensor> numbers = {Column("1", std::span<const int64_t>(whole))};
  EXPECT_FALSE(ReadSafetensors(WriteTensorFile(numbers)).ok());
}

TEST(VectorFileTest, NumbersThatAreNotFiniteAreRefused) {
  NamedTensor row = Row("direction.1");
  row.tensor.MutableAs<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ReasonOf(ReadGguf(Foreign({row})).status()), "NOT_FINITE");
}

// --- Files that were changed ---

TEST(VectorFileTest, WhatAFileTellsMustBelongToItsRows) {
  const std::string safetensors = WriteSafetensors({{Vector({0, 2})}});
  const std::string gguf = *WriteControlVector(Vector({1, 2}));
  const std::pair<std::string, std::string> changes[] = {
      {"word list", "word lost"}, {"18446744073709551615", "18446744073709551614"}};
  for (const auto& [what, with] : changes) {
    EXPECT_EQ(ReasonOf(ReadSafetensors(ReplacedOnce(safetensors, what, with)).status()),
              "DIGEST_MISMATCH");
    EXPECT_EQ(ReasonOf(ReadGguf(ReplacedOnce(gguf, what, with)).status()), "DIGEST_MISMATCH");
  }
  std::string row = gguf;
  row[row.size() - 32] ^= 1;
  EXPECT_EQ(ReasonOf(ReadGguf(row).status()), "DIGEST_MISMATCH");
  const std::string digest(64, 'a');
  EXPECT_EQ(ReadGguf(ReplacedOnce(gguf, digest, std::string(64, 'b'))).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(ReadGguf(ReplacedOnce(gguf, "\"layers\":[1,2]", "\"layers\":[1,3]")).status()),
            "MALFORMED_FILE");
  EXPECT_EQ(ReasonOf(ReadSafetensors(ReplacedOnce(safetensors, "vectors 1", "vectors 9")).status()),
            "MALFORMED_FILE");
}

TEST(VectorFileTest, AnnouncedSizesAreCheckedBeforeTheyAreUsed) {
  const std::string file = *WriteControlVector(Vector({1, 2}));
  const auto with = [&](size_t offset, uint64_t number) {
    std::string changed = file;
    std::memcpy(changed.data() + offset, &number, sizeof(number));
    return ReadGguf(changed).status();
  };
  constexpr size_t kTensors = 8, kPairs = 16, kKeyLength = 24;
  for (const uint64_t huge : {uint64_t{4097}, uint64_t{1} << 40, ~uint64_t{0}}) {
    for (const size_t offset : {kTensors, kPairs, kKeyLength}) {
      const absl::Status status = with(offset, huge);
      EXPECT_EQ(ReasonOf(status), "MALFORMED_FILE") << offset;
      EXPECT_THAT(std::string(status.message()), HasSubstr("byte "));
    }
  }
  // A string, an array and a dimension that announce more than there is.
  const auto foreign = [](absl::string_view value) {
    std::string start("GGUF\3\0\0\0", 8);
    for (const uint64_t number : {uint64_t{0}, uint64_t{1}, uint64_t{1}}) {
      start.append(reinterpret_cast<const char*>(&number), sizeof(number));
    }
    return ReasonOf(ReadGguf(absl::StrCat(start, "k", value)).status());
  };
  using namespace std::string_literals;
  const std::string many = "\xff\xff\xff\xff\xff\xff\xff\x7f"s;
  EXPECT_EQ(foreign("\x08\0\0\0"s + many), "MALFORMED_FILE");            // a string
  EXPECT_EQ(foreign("\x09\0\0\0\x04\0\0\0"s + many), "MALFORMED_FILE");  // of UINT32
  EXPECT_EQ(foreign("\x09\0\0\0\x08\0\0\0"s + many), "MALFORMED_FILE");  // of strings
  EXPECT_EQ(foreign("\x0d\0\0\0"s + many), "MALFORMED_FILE");            // no type
  std::string nested = "\x09\0\0\0"s;
  for (int i = 0; i < 1000; ++i) nested += "\x09\0\0\0\x01\0\0\0\0\0\0\0"s;
  EXPECT_EQ(foreign(nested), "MALFORMED_FILE");
}

TEST(VectorFileTest, EveryShorterFileIsRefused) {
  const std::string gguf = *WriteControlVector(Vector({1, 2}));
  const std::string safetensors = WriteSafetensors({{Vector({0, 2})}});
  // The last row has padding behind it.
  const size_t padding = 32 - kWidth * sizeof(float) % 32;
  for (size_t size = 0; size < gguf.size() - padding; ++size) {
    EXPECT_EQ(ReasonOf(ReadGguf(gguf.substr(0, size)).status()), "MALFORMED_FILE") << size;
  }
  for (size_t size = 0; size < safetensors.size(); ++size) {
    const std::string cut = safetensors.substr(0, size);
    EXPECT_EQ(ReasonOf(ReadSafetensors(cut).status()), "MALFORMED_FILE") << size;
    EXPECT_EQ(MemoryToRead(v1::VECTOR_FORMAT_SAFETENSORS, cut).ok(),
              size >= 8 && ([&] {
                uint64_t header = 0;
                std::memcpy(&header, safetensors.data(), sizeof(header));
                return size >= 8 + header;
              })());
  }
}

TEST(VectorFileTest, AFileOfOursThatLostWhatItTellsIsNotTakenForOneOfOthers) {
  const StoredVector whole = Vector({0, 1, 2, 3, 4, 5});
  const std::string safetensors =
      ReplacedOnce(WriteSafetensors({{whole}}), "valuescope.format", "valuescope.formed");
  EXPECT_EQ(ReasonOf(ReadSafetensors(safetensors).status()), "MALFORMED_FILE");
  const std::string gguf =
      ReplacedOnce(*WriteControlVector(Vector({1, 2})), "valuescope.vector", "valuescope.hector");
  EXPECT_EQ(ReasonOf(ReadGguf(gguf).status()), "MALFORMED_FILE");
}

// Bytes changed, taken out, put in twice, cut off: one to four of these.
std::string Mutated(std::string file, std::mt19937_64& random) {
  const int changes = 1 + static_cast<int>(random() % 4);
  for (int i = 0; i < changes && !file.empty(); ++i) {
    // Most of the structure stands in the beginning.
    const size_t span = random() % 2 == 0 ? std::min<size_t>(file.size(), 64) : file.size();
    const size_t place = random() % span;
    const size_t length = std::min<size_t>(1 + random() % 16, file.size() - place);
    switch (random() % 6) {
      case 0:
        file[place] = static_cast<char>(random());
        break;
      case 1:
        file[place] = static_cast<char>(file[place] ^ (1 << random() % 8));
        break;
      case 2:
        file.erase(place, length);
        break;
      case 3:
        file.insert(place, file.substr(place, length));
        break;
      case 4:
        file.resize(place);
        break;
      case 5: {
        const uint64_t extremes[] = {0, 1, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 32};
        const uint64_t number = extremes[random() % 5];
        const size_t bytes = std::min<size_t>(sizeof(number), file.size() - place);
        std::memcpy(file.data() + place, &number, bytes);
        break;
      }
    }
  }
  return file;
}

// VALUESCOPE_MUTATIONS sets how many of each format; the suite takes few,
// tests/sanitizers/mutated_files many.
int NumMutations() {
  const char* asked = std::getenv("VALUESCOPE_MUTATIONS");
  int count = 300;
  EXPECT_TRUE(asked == nullptr || absl::SimpleAtoi(asked, &count)) << asked;
  return count;
}

// Reads mutations of `file`: each is refused for what the contract says, or gives what
// `file` gave. Returns how many were refused.
int RefusedMutations(const std::string& file, v1::VectorFormat format) {
  std::mt19937_64 random(format);
  const std::vector<VectorInFile> whole = Read(Header(format), file)->vectors;
  int refused = 0;
  for (int i = 0; i < NumMutations(); ++i) {
    const auto read = Read(Header(format), Mutated(file, random));
    if (read.ok()) {
      EXPECT_EQ(read->vectors.size(), whole.size()) << i;
      for (size_t k = 0; k < std::min(whole.size(), read->vectors.size()); ++k) {
        EXPECT_EQ(VectorDigest(read->vectors[k].vector), VectorDigest(whole[k].vector)) << i;
      }
      continue;
    }
    ++refused;
    const bool other_model = ReasonOf(read.status()) == "WRONG_MODEL";
    EXPECT_TRUE(absl::IsInvalidArgument(read.status()) || other_model) << i << read.status();
    // A change may take away every key that says whose file it is.
    const bool unknown_writer = ReasonOf(read.status()) == "CONVENTION_NEEDED";
    EXPECT_THAT(std::string(read.status().message()),
                HasSubstr(unknown_writer ? "`header.convention`: " : "`data`: "))
        << i;
    EXPECT_LT(read.status().message().size(), 2000u) << i;
  }
  return refused;
}

TEST(VectorFileTest, AMutatedFileGivesWhatWasWrittenOrARefusal) {
  const std::string safetensors =
      WriteSafetensors({{Vector({0, 2}), Vector({1}, v1::SITE_MLP_NEURONS)}});
  EXPECT_GT(RefusedMutations(safetensors, v1::VECTOR_FORMAT_SAFETENSORS), NumMutations() / 2);
  const std::string gguf = *WriteControlVector(Vector({1, 2, 5}));
  EXPECT_GT(RefusedMutations(gguf, v1::VECTOR_FORMAT_GGUF), NumMutations() / 2);
}

TEST(VectorFileTest, AMutatedFileOfOthersGivesAVectorOfTheModelOrARefusal) {
  const std::vector<NamedTensor> tensors = {Row("1", {kLayers, kWidth})};
  const std::pair<std::string, v1::VectorFormat> files[] = {
      {WriteTensorFile(tensors), v1::VECTOR_FORMAT_SAFETENSORS},
      {Foreign({Row("direction.1"), Row("direction.2")}), v1::VECTOR_FORMAT_GGUF}};
  for (const auto& [file, format] : files) {
    std::mt19937_64 random(format);
    int refused = 0;
    for (int i = 0; i < NumMutations(); ++i) {
      const auto read = Read(Header(format), Mutated(file, random));
      refused += !read.ok();
      if (!read.ok()) {
        EXPECT_TRUE(absl::IsInvalidArgument(read.status())) << read.status();
        continue;
      }
      for (const VectorInFile& one : read->vectors) {
        EXPECT_TRUE(CheckVector(one.vector, Model().architecture).ok());
      }
    }
    EXPECT_GT(refused, NumMutations() / 2);
  }
}

}  // namespace
}  // namespace valuescope::studies

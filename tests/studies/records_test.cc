// What is kept of vectors and neuron sets: records come back, names follow from content alone, and
// records of before are read.
#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/error.h"
#include "store/directory_blob_store.h"
#include "studies/named_content.h"
#include "studies/provenance.h"
#include "studies/records_of_version_1.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_record.h"
#include "studies/stored_vector.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::studies {
namespace {

using google::protobuf::util::MessageDifferencer;

std::string Hex(char digit) { return std::string(64, digit); }

v1::Provenance WholeProvenance() {
  v1::Provenance provenance;
  provenance.set_format_version(1);
  provenance.set_model("models/tiny");
  provenance.set_model_digest(Hex('a'));
  provenance.set_tokenizer_digest(Hex('b'));
  provenance.set_template_digest(Hex('c'));
  provenance.set_site(v1::SITE_RESIDUAL_POST);
  provenance.set_layer_convention("block, 0-based");
  provenance.set_pooling(v1::POOLING_RESPONSE_MEAN);
  provenance.set_sign_rule(kDifferenceSign);
  provenance.set_judge("a \"coin\", \xc3\xbc");
  provenance.add_seeds(7);
  provenance.add_seeds(18446744073709551615u);
  provenance.set_num_expressing(12);
  provenance.set_num_non_expressing(11);
  provenance.set_num_dropped(1);
  for (const auto& [name, digit] : {std::pair("responses", 'd'), std::pair("data set", 'e')}) {
    v1::ResourceDigest& input = *provenance.add_inputs();
    input.set_name(name);
    input.set_digest(Hex(digit));
  }
  provenance.set_options(R"({"bootstrap_samples":20})");
  provenance.set_compute_dtype(v1::DATA_TYPE_BFLOAT16);
  provenance.set_determinism("to rounding");
  provenance.set_hardware_class("x86_64 avx2");
  return provenance;
}

StoredVector Extracted() {
  StoredVector vector;
  vector.record.set_model("models/tiny");
  vector.record.set_model_digest(Hex('a'));
  vector.record.set_site(v1::SITE_RESIDUAL_POST);
  vector.record.set_width(3);
  vector.record.add_layers(0);
  vector.record.add_layers(4);
  vector.rows = {1, -2.5f, 0.1f, 4, 5, 6e-7f};
  *vector.record.mutable_provenance() = WholeProvenance();
  v1::VectorStatistics& row = *vector.record.add_statistics();
  row.set_num_expressing(12);
  row.set_num_non_expressing(11);
  row.set_norm(2);
  row.set_relative_norm(0.1);
  row.set_split_half_cosine(-0.25);
  row.set_reliability(1.0 / 3);
  row.mutable_norm_interval()->set_lower(1e-7);
  row.mutable_norm_interval()->set_upper(3e21);
  row.mutable_norm_interval()->set_level(0.95);
  row.set_auroc(0.5);
  row.set_debiased_squared_norm(-4);
  vector.record.add_statistics()->set_layer(4);
  return vector;
}

StoredVector Given() {
  StoredVector vector;
  vector.record.set_model("models/tiny");
  vector.record.set_model_digest(Hex('a'));
  vector.record.set_site(v1::SITE_FINAL_NORM);
  vector.record.set_width(3);
  vector.rows = {1, 2, 3};
  v1::Provenance& provenance = *vector.record.mutable_provenance();
  provenance.set_format_version(1);
  provenance.set_layer_convention("block, 0-based");
  provenance.set_model("models/tiny");
  provenance.set_model_digest(Hex('a'));
  provenance.set_tokenizer_digest(Hex('b'));
  provenance.set_site(v1::SITE_FINAL_NORM);
  provenance.set_sign_rule("caller");
  return vector;
}

StoredVector Derived() {
  StoredVector vector = Extracted();
  vector.record.clear_statistics();
  const v1::Provenance extracted = Extracted().record.provenance();
  const v1::Provenance given = Given().record.provenance();
  v1::Provenance& provenance = *vector.record.mutable_provenance();
  provenance = DerivedProvenance(std::array{&extracted, &given});
  provenance.set_sign_rule("mean of v_prompt - v_int");
  provenance.add_inputs()->set_name("vectors/a");
  provenance.mutable_inputs(0)->set_digest(Hex('f'));
  return vector;
}

v1::NeuronSet ScoredRecord() {
  v1::NeuronSet set;
  set.set_model("models/tiny");
  set.set_model_digest(Hex('a'));
  set.set_method(kDirectContributionMethod);
  set.set_top_k(3);
  v1::NeuronSetLayer& first = *set.add_layers();
  first.set_num_neurons(4);
  first.set_score_sum(0.5);
  first.set_score_min(-0.125);
  first.set_score_max(1e-9);
  v1::NeuronSetLayer& second = *set.add_layers();
  second.set_layer(2);
  second.set_num_neurons(4);
  second.set_num_members(3);
  second.set_score_sum(1);
  second.set_score_max(1.0 / 3);
  set.add_warnings("only 4 expressing");
  *set.mutable_provenance() = WholeProvenance();
  set.mutable_provenance()->set_site(v1::SITE_MLP_NEURONS);
  return set;
}

v1::NeuronSet ClassifiedRecord() {
  v1::NeuronSet set = ScoredRecord();
  set.set_method(kGeometricMethod);
  set.set_top_k(100);
  set.clear_warnings();
  v1::NeuronClassCount& unclassified = *set.mutable_layers(1)->add_classes();
  unclassified.set_class_(v1::NEURON_CLASS_UNCLASSIFIED);
  unclassified.set_count(2);
  unclassified.set_expected_count(1.5);
  v1::NeuronClassCount& negative = *set.mutable_layers(1)->add_classes();
  negative.set_class_(v1::NEURON_CLASS_SHARED_NEGATIVE);
  negative.set_expected_count(1.0 / 6);
  return set;
}

// As servers wrote Extracted() and ClassifiedRecord() before the messages were the records.
constexpr char kVectorOfVersion1[] =
    R"json({"format_version":1,"layers":[0,4],"model":"models/tiny","model_digest":"aaaaaaaaaaa)json"
    R"json(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","provenance":"{\"compute_dtyp)json"
    R"json(e\":\"bfloat16\",\"determinism\":\"to rounding\",\"format_version\":1,\"hardware_cla)json"
    R"json(ss\":\"x86_64 avx2\",\"inputs\":[{\"digest\":\"ddddddddddddddddddddddddddddddddddddd)json"
    R"json(ddddddddddddddddddddddddddd\",\"name\":\"responses\"},{\"digest\":\"eeeeeeeeeeeeeeee)json"
    R"json(eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\",\"name\":\"data set\"}],\"judge\")json"
    R"json(:\"a \\\"coin\\\", ü\",\"layer_convention\":\"block, 0-based\",\"model\":\"models/ti)json"
    R"json(ny\",\"model_digest\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)json"
    R"json(aaaa\",\"num_dropped\":1,\"num_expressing\":12,\"num_non_expressing\":11,\"options\")json"
    R"json(:\"{\\\"bootstrap_samples\\\":20}\",\"pooling\":\"response mean\",\"seeds\":[7,18446)json"
    R"json(744073709551615],\"sign_rule\":\"mean(expressing) - mean(non-expressing)\",\"site\":)json"
    R"json(\"RESIDUAL_POST\",\"template_digest\":\"cccccccccccccccccccccccccccccccccccccccccccc)json"
    R"json(cccccccccccccccccccc\",\"tokenizer_digest\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)json"
    R"json(bbbbbbbbbbbbbbbbbbbbbbbbbb\"}","site":"RESIDUAL_POST","statistics":[{"auroc":0.5,"de)json"
    R"json(biased_squared_norm":-4.0,"layer":0,"norm":2.0,"norm_interval":{"level":0.95,"lower")json"
    R"json(:1e-07,"upper":3e+21},"num_expressing":12,"num_non_expressing":11,"relative_norm":0.)json"
    R"json(1,"reliability":0.3333333333333333,"split_half_cosine":-0.25},{"auroc":null,"debiase)json"
    R"json(d_squared_norm":null,"layer":4,"norm":0.0,"norm_interval":null,"num_expressing":0,"n)json"
    R"json(um_non_expressing":0,"relative_norm":null,"reliability":null,"split_half_cosine":nul)json"
    R"json(l}],"width":3})json";
constexpr char kNeuronSetOfVersion1[] =
    R"json({"format_version":1,"layers":[{"classes":[],"layer":0,"num_members":0,"num_neurons":)json"
    R"json(4,"score_max":1e-09,"score_min":-0.125,"score_sum":0.5},{"classes":[{"class":2,"coun)json"
    R"json(t":2,"expected":1.5},{"class":6,"count":0,"expected":0.16666666666666666}],"layer":2)json"
    R"json(,"num_members":3,"num_neurons":4,"score_max":0.3333333333333333,"score_min":0.0,"sco)json"
    R"json(re_sum":1.0}],"method":"geometric","model":"models/tiny","model_digest":"aaaaaaaaaaa)json"
    R"json(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","provenance":"{\"compute_dtyp)json"
    R"json(e\":\"bfloat16\",\"determinism\":\"to rounding\",\"format_version\":1,\"hardware_cla)json"
    R"json(ss\":\"x86_64 avx2\",\"inputs\":[{\"digest\":\"ddddddddddddddddddddddddddddddddddddd)json"
    R"json(ddddddddddddddddddddddddddd\",\"name\":\"responses\"},{\"digest\":\"eeeeeeeeeeeeeeee)json"
    R"json(eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\",\"name\":\"data set\"}],\"judge\")json"
    R"json(:\"a \\\"coin\\\", ü\",\"layer_convention\":\"block, 0-based\",\"model\":\"models/ti)json"
    R"json(ny\",\"model_digest\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)json"
    R"json(aaaa\",\"num_dropped\":1,\"num_expressing\":12,\"num_non_expressing\":11,\"options\")json"
    R"json(:\"{\\\"bootstrap_samples\\\":20}\",\"pooling\":\"response mean\",\"seeds\":[7,18446)json"
    R"json(744073709551615],\"sign_rule\":\"mean(expressing) - mean(non-expressing)\",\"site\":)json"
    R"json(\"MLP_NEURONS\",\"template_digest\":\"cccccccccccccccccccccccccccccccccccccccccccccc)json"
    R"json(cccccccccccccccccc\",\"tokenizer_digest\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)json"
    R"json(bbbbbbbbbbbbbbbbbbbbbbbb\"}","top_k":100,"warnings":[]})json";

store::Resource OfVersion1(absl::string_view metadata) {
  store::Resource resource;
  resource.format_version = 1;
  resource.metadata = std::string(metadata);
  return resource;
}

store::Resource ResourceOf(const v1::NeuronSet& set) {
  return *MakeNeuronSetResource(set, {.digest = Hex('9'), .size = 1});
}

void ExpectDataLoss(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

// Each was computed by a server whose records were of version 1.
TEST(DigestsTest, AreThoseOfBefore) {
  EXPECT_EQ(VectorDigest(Extracted()),
            "ab4c8aeaf28721e3e36dff819d393c98d765e2c7bf38f273aeb4290715bc980b");
  EXPECT_EQ(VectorDigest(Given()),
            "71650474fd98d7a73f167ae0b2fe43120632ff30ebd70d0dcf61247067bb0cb2");
  EXPECT_EQ(VectorDigest(Derived()),
            "444962496b2d4079a7d986fab0bb4a627e38375ed632ea563566dd15f2e90eaf");
  EXPECT_EQ(ResourceOf(ScoredRecord()).digest,
            "49db3a8ff556daa88daeff2d2a6ab3d17066c0e4ab1a53b81f724236bd649f2f");
  EXPECT_EQ(ResourceOf(ClassifiedRecord()).digest,
            "19c9fbcc9d2d6a9ffd9901a38688510eb98a54f481e985a08289f81f1c49a231");
}

TEST(DigestsTest, WhatTheContractGotLaterCountsWhereItIsSet) {
  v1::NeuronSet set = ScoredRecord();
  const std::string before = ResourceOf(set).digest;
  set.mutable_layers(0)->set_completeness_gap(0);
  EXPECT_NE(ResourceOf(set).digest, before);
}

class VectorRecordTest : public testing::Test {
 protected:
  store::Resource ResourceOf(const StoredVector& vector) {
    return *MakeVectorResource(*blobs_, vector);
  }

  TemporaryFolder folder_;
  std::unique_ptr<store::BlobStore> blobs_ = *store::OpenDirectoryBlobStore(folder_ / "blobs");
};

TEST_F(VectorRecordTest, IsNamedByItsContentAndComesBack) {
  StoredVector vector = Extracted();
  const store::Resource resource = ResourceOf(vector);
  const auto back = ReadVector(*blobs_, resource);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->rows, vector.rows);
  EXPECT_TRUE(MessageDifferencer::Equals(back->record, vector.record));
  vector.record.set_display_name("another name for the same content");
  const store::Resource renamed = ResourceOf(vector);
  EXPECT_EQ(renamed.id, resource.id);
  EXPECT_EQ(renamed.display_name, vector.record.display_name());
  EXPECT_EQ(renamed.metadata, resource.metadata) << "the store keeps the name";
  vector.rows[5] = 7;
  EXPECT_NE(ResourceOf(vector).id, resource.id);
}

TEST_F(VectorRecordTest, TheSameRowsWithAnotherRecordAreAnotherVector) {
  const store::Resource first = ResourceOf(Extracted());
  std::set<std::string> ids = {first.id};
  const std::vector<std::function<void(v1::Vector&)>> changes = {
      [](v1::Vector& record) { record.mutable_statistics(1)->set_reliability(0); },
      [](v1::Vector& record) { record.clear_statistics(); },
      [](v1::Vector& record) { record.mutable_provenance()->set_judge("somebody"); },
      [](v1::Vector& record) { record.mutable_provenance()->mutable_inputs()->RemoveLast(); },
      [](v1::Vector& record) { record.mutable_provenance()->clear_options(); },
      [](v1::Vector& record) {
        record.mutable_provenance()->set_compute_dtype(v1::DATA_TYPE_FLOAT32);
      }};
  for (const auto& change : changes) {
    StoredVector vector = Extracted();
    change(vector.record);
    const store::Resource other = ResourceOf(vector);
    EXPECT_TRUE(ids.insert(other.id).second);
    EXPECT_EQ(other.blob_digest, first.blob_digest);
    EXPECT_TRUE(MessageDifferencer::Equals(DescribeVector(other)->record, vector.record));
  }
}

TEST_F(VectorRecordTest, ARecordThatGrewWithItsSourcesIsRefused) {
  StoredVector vector = Derived();
  vector.record.mutable_provenance()->set_judge(std::string(kMostRecordBytes, 'j'));
  EXPECT_EQ(DetailsOf(MakeVectorResource(*blobs_, vector).status()).reason, "RECORD_TOO_LARGE");
}

TEST_F(VectorRecordTest, FieldsOfANewerServerAreKept) {
  StoredVector vector = Extracted();
  store::Resource resource = ResourceOf(vector);
  google::protobuf::UnknownFieldSet later;
  later.AddLengthDelimited(1000, "of a newer server");
  std::string bytes;
  later.SerializeToString(&bytes);
  resource.metadata += bytes;
  const auto back = DescribeVector(resource);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->record.width(), 3);
  EXPECT_EQ(back->record.SerializeAsString().size(), resource.metadata.size());
}

TEST_F(VectorRecordTest, ADamagedRecordIsDataLoss) {
  const store::Resource good = ResourceOf(Extracted());
  store::Resource bad = good;
  bad.format_version = 3;
  ExpectDataLoss(DescribeVector(bad).status());
  bad = good;
  bad.metadata += "x";
  ExpectDataLoss(DescribeVector(bad).status());
  for (const auto& change : std::vector<std::function<void(v1::Vector&)>>{
           [](v1::Vector& record) { record.clear_site(); },
           [](v1::Vector& record) { record.set_site(static_cast<v1::Site>(77)); },
           [](v1::Vector& record) { record.clear_model_digest(); },
           [](v1::Vector& record) { record.set_width(0); },
           [](v1::Vector& record) { record.clear_layers(); },
           [](v1::Vector& record) { record.set_layers(0, 5); }}) {
    v1::Vector record = Extracted().record;
    change(record);
    bad.metadata = record.SerializeAsString();
    ExpectDataLoss(DescribeVector(bad).status());
  }
}

TEST(NeuronSetRecordTest, WarningsAndProvenanceStayWithTheSetAndAreInItsName) {
  const v1::NeuronSet set = ClassifiedRecord();
  const store::Resource resource = ResourceOf(set);
  const auto back = DescribeNeuronSet(resource);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*back, set));
  v1::NeuronSet warned = set, other = set, wide = set, few = set;
  warned.add_warnings("layer 0: left out");
  other.mutable_provenance()->set_options("{}");
  wide.mutable_layers(1)->mutable_classes(0)->set_expected_count(0.6);
  few.set_top_k(5);
  for (const v1::NeuronSet& each : {warned, other, wide, few}) {
    EXPECT_NE(ResourceOf(each).id, resource.id);
  }
}

TEST(NeuronSetRecordTest, ADamagedRecordIsDataLoss) {
  store::Resource bad = ResourceOf(ScoredRecord());
  bad.metadata.resize(bad.metadata.size() - 1);
  ExpectDataLoss(DescribeNeuronSet(bad).status());
  bad.metadata.clear();
  ExpectDataLoss(DescribeNeuronSet(bad).status());
}

TEST(RecordsOfVersion1Test, AreReadIntoTheSameMessages) {
  const auto vector = DescribeVector(OfVersion1(kVectorOfVersion1));
  ASSERT_TRUE(vector.ok()) << vector.status();
  EXPECT_TRUE(MessageDifferencer::Equals(vector->record, Extracted().record))
      << vector->record.DebugString();
  const auto set = DescribeNeuronSet(OfVersion1(kNeuronSetOfVersion1));
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*set, ClassifiedRecord())) << set->DebugString();
}

TEST(RecordsOfVersion1Test, TheFirstOnesHaveNeitherOptionsNorWarnings) {
  const auto provenance = ProvenanceOfVersion1(
      R"({"compute_dtype":"","determinism":"","format_version":1,"hardware_class":"","inputs":[],)"
      R"("judge":"","layer_convention":"block, 0-based","model":"models/tiny",)"
      R"("model_digest":"aa","num_dropped":0,"num_expressing":1,"num_non_expressing":1,)"
      R"("pooling":"","seeds":[7],"sign_rule":"x","site":"RESIDUAL_POST","template_digest":"",)"
      R"("tokenizer_digest":"bb"})");
  ASSERT_TRUE(provenance.ok()) << provenance.status();
  EXPECT_EQ(provenance->options(), "");
  EXPECT_EQ(provenance->compute_dtype(), v1::DATA_TYPE_UNSPECIFIED);
  EXPECT_EQ(provenance->pooling(), v1::POOLING_UNSPECIFIED);
  EXPECT_EQ(provenance->site(), v1::SITE_RESIDUAL_POST);
  EXPECT_THAT(provenance->seeds(), testing::ElementsAre(7));
}

TEST(RecordsOfVersion1Test, DamageIsDataLoss) {
  const std::string whole = kVectorOfVersion1;
  for (size_t size = 0; size < whole.size(); ++size) {
    ExpectDataLoss(DescribeVector(OfVersion1(whole.substr(0, size))).status());
  }
  const auto replaced = [&whole](const std::string& from, const std::string& to) {
    std::string text = whole;
    text.replace(text.find(from), from.size(), to);
    return DescribeVector(OfVersion1(text)).status();
  };
  EXPECT_TRUE(replaced("tiny", "tony").ok());
  ExpectDataLoss(replaced(R"("site":"RESIDUAL_POST")", R"("site":"NOWHERE")"));
  ExpectDataLoss(replaced(R"("width":3)", R"("width":"wide")"));
  ExpectDataLoss(replaced(R"("width":3)", R"("width":3e30)"));
  ExpectDataLoss(replaced(R"("layers":[0,4])", R"("layers":{})"));
  ExpectDataLoss(replaced(R"("layers":[0,4])", R"("layers":7)"));
  ExpectDataLoss(replaced(R"({"format_version":1)", R"({"format_version":4)"));
  ExpectDataLoss(replaced(R"("provenance":"{)", R"("provenance":"[)"));
  ExpectDataLoss(replaced("bfloat16", "bfloat17"));
}

TEST(ArtifactRecordsTest, TellTheProvenanceOfEitherVersion) {
  const v1::Provenance provenance = WholeProvenance();
  EXPECT_EQ(ProvenanceOfArtifact(OfVersion1("{}"))->ByteSizeLong(), 0u);
  const std::string quoted = nlohmann::json(NamedContent(provenance)).dump();
  const auto before =
      ProvenanceOfArtifact(OfVersion1(R"({"format_version":1,"provenance":)" + quoted + "}"));
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*before, provenance));
  ExpectDataLoss(ProvenanceOfArtifact(OfVersion1(R"({"format_version":1})")).status());
  store::Resource resource;
  resource.format_version = kRecordVersion;
  EXPECT_EQ(ProvenanceOfArtifact(resource)->ByteSizeLong(), 0u);
  resource.metadata = provenance.SerializeAsString();
  EXPECT_TRUE(MessageDifferencer::Equals(*ProvenanceOfArtifact(resource), provenance));
}

}  // namespace
}  // namespace valuescope::studies

// Interventions of the contract: what each operation becomes, and which field each mistake is
// blamed on.
#include "services/intervention_codec.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "tests/services/scripted_engine.h"

namespace valuescope::services {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

// vectors/v has rows for layers 1 and 3 at the width of the model's residual stream, vectors/m for
// layers 0 and 2 at MLP_NEURONS; neuronSets/s has members in layers 0 and 2.
class FewResources : public VectorResolver {
 public:
  int reads = 0;  // of vectors and neuron sets

  absl::StatusOr<ResolvedVector> Resolve(absl::string_view tenant, absl::string_view name,
                                         const engine::ServedModel&, model::Site site,
                                         absl::string_view field) override {
    ++reads;
    if (tenant != "me") return ResourceNotFound(name);
    const bool of_neurons = name == "vectors/m";
    if (!of_neurons && name != "vectors/v") return ResourceNotFound(name);
    if (of_neurons != (site == model::Site::kMlpNeurons)) {
      return InvalidField(field, "must be a vector of another site");
    }
    if (of_neurons) {
      return ResolvedVector{.name = "vectors/m",
                            .digest = "dm",
                            .site = site,
                            .width = 3,
                            .rows = {{0, {1, 2, 3}}, {2, {4, 5, 6}}}};
    }
    return ResolvedVector{.name = "vectors/v",
                          .digest = "d",
                          .site = site,
                          .width = 2,
                          .rows = {{1, {10, 11}}, {3, {30, 31}}}};
  }

  absl::StatusOr<NeuronCounts> CountNeurons(absl::string_view tenant, absl::string_view name,
                                            v1::NeuronClass neuron_class,
                                            const engine::ServedModel&,
                                            absl::string_view) override {
    if (tenant != "me" || name != "neuronSets/s") return ResourceNotFound(name);
    NeuronCounts counts{.by_layer = {{0, 1}, {2, 0}}, .bytes_to_read = 0};
    if (neuron_class == v1::NEURON_CLASS_UNSPECIFIED) counts.by_layer[2] = 2;
    return counts;
  }

  absl::StatusOr<ResolvedNeurons> ResolveNeurons(absl::string_view tenant, absl::string_view name,
                                                 v1::NeuronClass neuron_class,
                                                 const engine::ServedModel&,
                                                 absl::string_view) override {
    ++reads;
    if (tenant != "me" || name != "neuronSets/s") return ResourceNotFound(name);
    ResolvedNeurons neurons{.name = "neuronSets/s", .digest = "ds", .by_layer = {{0, {1}}}};
    if (neuron_class == v1::NEURON_CLASS_UNSPECIFIED) neurons.by_layer[2] = {0, 2};
    return neurons;
  }
};

class InterventionCodecTest : public testing::Test {
 protected:
  using Result = absl::StatusOr<std::vector<engine::Intervention>>;

  InterventionCodecTest() {
    model_.architecture.num_layers = 4;
    model_.architecture.hidden = 2;
    model_.architecture.intermediate = 3;
    model_.architecture.num_heads = 2;
    model_.architecture.head_dim = 1;
    model_.architecture.vocabulary = 10;
    model_.architecture.max_positions = 64;
    model_.engine = engine_;
  }

  Result Interventions(const std::vector<std::string>& texts) {
    google::protobuf::RepeatedPtrField<v1::Intervention> protos;
    for (const std::string& text : texts) *protos.Add() = Parse<v1::Intervention>(text);
    used_.clear();
    auto made = InterventionsFromProto(
        protos, {.tenant = "me", .model = model_, .vectors = resources_}, used_);
    if (!made.ok()) return made.status();
    memory_ = std::move(made->memory);
    return std::move(made->interventions);
  }

  template <typename Operation>
  static const Operation& Only(const Result& result) {
    return std::get<Operation>(result->front().operation);
  }

  void ExpectRefused(const std::string& intervention, const std::string& field,
                     const std::string& says) {
    const auto result = Interventions({intervention});
    ASSERT_FALSE(result.ok()) << intervention;
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << intervention;
    EXPECT_EQ(DetailsOf(result.status()).field, field) << intervention;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(says)) << intervention;
  }

  const std::shared_ptr<ScriptedEngine> engine_ = std::make_shared<ScriptedEngine>();
  engine::ServedModel model_;
  FewResources resources_;
  std::shared_ptr<MemoryLedger::Lease> memory_;  // of the last ones
  UsedResources used_;
};

// A float32 tensor of the numbers 0, 1, 2, ... in this shape.
std::string Counting(const std::vector<int>& shape) {
  v1::Tensor tensor;
  tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
  int count = 1;
  for (const int extent : shape) {
    tensor.add_shape(extent);
    count *= extent;
  }
  for (int i = 0; i < count; ++i) {
    const auto number = static_cast<float>(i);
    tensor.mutable_data()->append(reinterpret_cast<const char*>(&number), sizeof(number));
  }
  return "tensor { " + tensor.ShortDebugString() + " }";
}

// [2] float32: 1, 2.
const char kPair[] =
    R"(tensor { dtype: DATA_TYPE_FLOAT32 shape: 2 data: "\000\000\200\077\000\000\000\100" })";

TEST_F(InterventionCodecTest, AnInlineRowServesEveryChosenLayer) {
  const auto result = Interventions(
      {std::string("layers { range { first: 1 last: 2 } } add { coefficient: 0 ") + kPair + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  const engine::Intervention& one = result->front();
  EXPECT_EQ(one.site, model::Site::kResidualPost);
  EXPECT_THAT(one.layers, ElementsAre(1, 2));
  EXPECT_EQ(one.tokens.kind, engine::TokenKind::kFromLastPrompt);
  EXPECT_EQ(std::get<engine::AddVector>(one.operation).coefficient,
            0);  // an explicit zero is a zero
  EXPECT_THAT(*std::get<engine::AddVector>(one.operation).rows, ElementsAre(1, 2, 1, 2));
}

TEST_F(InterventionCodecTest, ANamedVectorGivesEachLayerItsRowOrOneRowToAll) {
  auto result =
      Interventions({R"(layers { list { layers: 3 layers: 1 } } add { vector: "vectors/v" })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->front().layers, ElementsAre(1, 3));
  EXPECT_THAT(*Only<engine::AddVector>(result).rows, ElementsAre(10, 11, 30, 31));
  EXPECT_EQ(Only<engine::AddVector>(result).coefficient, 1);
  EXPECT_EQ(used_["vectors/v"], "d");
  result = Interventions({R"(layers { all: true } add { vector: "vectors/v" source_layer: 3 })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(*Only<engine::AddVector>(result).rows, ElementsAre(30, 31, 30, 31, 30, 31, 30, 31));
}

TEST_F(InterventionCodecTest, BadInterventionsNameTheirFieldAndTheRange) {
  const std::string add = std::string("add { ") + kPair + "}";
  ExpectRefused(add, "interventions[0].layers", "0 to 3");
  ExpectRefused("layers { list { layers: 1 layers: 4 } }" + add,
                "interventions[0].layers.list.layers[1]", "0 to 3");
  ExpectRefused("layers { list { layers: -1 } }" + add, "interventions[0].layers.list.layers[0]",
                "0 to 3");
  ExpectRefused("layers { list { layers: 1 layers: 1 } }" + add,
                "interventions[0].layers.list.layers[1]", "twice");
  ExpectRefused("layers { list { } }" + add, "interventions[0].layers.list.layers", "at least one");
  ExpectRefused("layers { range { first: 2 last: 1 } }" + add, "interventions[0].layers.range.last",
                "2 to 3");
  ExpectRefused("layers { range { first: 0 last: 2147483647 } }" + add,
                "interventions[0].layers.range.last", "0 to 3");
  ExpectRefused("layers { all: false }" + add, "interventions[0].layers.all", "true");
  ExpectRefused("site: SITE_LOGITS layers { all: true }" + add, "interventions[0].layers",
                "no layers");
  ExpectRefused("layers { all: true }", "interventions[0]", "operation");
  ExpectRefused("layers { all: true } add { }", "interventions[0].add", "vector or a tensor");
  ExpectRefused("site: SITE_MLP_NEURONS layers { all: true }" + add,
                "interventions[0].add.tensor.shape", "[3]");
  ExpectRefused(std::string("layers { all: true } add { source_layer: 1 ") + kPair + "}",
                "interventions[0].add.source_layer", "named vector");
  ExpectRefused(R"(layers { all: true } add { vector: "vectors/v" })",
                "interventions[0].add.vector", "layer 0");
  ExpectRefused("layers { all: true } tokens { kind: TOKEN_KIND_ALL positions: 1 }" + add,
                "interventions[0].tokens.positions", "TOKEN_KIND_POSITIONS");
  ExpectRefused("site: 77 layers { all: true }" + add, "interventions[0].site", "SITE_");
}

TEST_F(InterventionCodecTest, AnotherTenantsVectorDoesNotExist) {
  EXPECT_EQ(Interventions({R"(layers { all: true } add { vector: "vectors/w" })"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(InterventionCodecTest, DirectionsAreInlineOrNamedOneOrSeveral) {
  auto result =
      Interventions({"preserve_norm: true layers { list { layers: 1 layers: 2 } } "
                     "project_out { strength: 0.5 " +
                     Counting({2, 3, 2}) + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->front().preserve_norm);
  EXPECT_EQ(Only<engine::ProjectOut>(result).num_directions, 3);
  EXPECT_EQ(Only<engine::ProjectOut>(result).strength, 0.5f);
  EXPECT_THAT(*Only<engine::ProjectOut>(result).directions,
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
  result = Interventions(
      {"layers { list { layers: 1 layers: 2 } } project_out {" + Counting({2}) + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Only<engine::ProjectOut>(result).strength, 1);
  EXPECT_THAT(*Only<engine::ProjectOut>(result).directions, ElementsAre(0, 1, 0, 1));
  result = Interventions({R"(layers { list { layers: 1 layers: 3 } }
                             project_out { vectors: "vectors/v" vectors: "vectors/v" })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Only<engine::ProjectOut>(result).num_directions, 2);
  EXPECT_THAT(*Only<engine::ProjectOut>(result).directions,
              ElementsAre(10, 11, 10, 11, 30, 31, 30, 31));
  EXPECT_EQ(used_["vectors/v"], "d");
}

TEST_F(InterventionCodecTest, AClampHasAValueAndAReplacementARow) {
  auto result =
      Interventions({R"(layers { list { layers: 3 } } clamp { vector: "vectors/v" value: 0 })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Only<engine::Clamp>(result).value, 0);
  EXPECT_THAT(*Only<engine::Clamp>(result).rows, ElementsAre(30, 31));
  const std::string layers = "layers { list { layers: 0 layers: 1 } } ";
  result = Interventions({layers + "replace {" + Counting({2, 2}) + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(Only<engine::Replace>(result).each_position);
  EXPECT_THAT(*Only<engine::Replace>(result).rows, ElementsAre(0, 1, 2, 3));
  result = Interventions({layers + "tokens { positions: 4 positions: -1 positions: 0 } replace {" +
                          Counting({2, 3, 2}) + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(Only<engine::Replace>(result).each_position);
  // One row for the model's only FINAL_NORM.
  result = Interventions({"site: SITE_FINAL_NORM replace {" + Counting({2}) + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(*Only<engine::Replace>(result).rows, ElementsAre(0, 1));
}

TEST_F(InterventionCodecTest, NeuronsAndLayersIntersect) {
  auto result = Interventions({R"(scale_neurons { factor: 0
      neurons { layer: 2 index: 2 } neurons { layer: 1 index: 0 } neurons { layer: 2 index: 0 } })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->front().site, model::Site::kMlpNeurons);
  EXPECT_THAT(result->front().layers, ElementsAre(1, 2));
  EXPECT_THAT(Only<engine::ScaleNeurons>(result).neurons,
              ElementsAre(ElementsAre(0), ElementsAre(0, 2)));
  result = Interventions({R"(layers { range { first: 1 last: 3 } }
      ablate_neurons { neuron_set: "neuronSets/s" mode: ABLATION_MODE_MEAN reference: "vectors/m" })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->front().layers, ElementsAre(2));
  EXPECT_THAT(Only<engine::AblateNeurons>(result).neurons, ElementsAre(ElementsAre(0, 2)));
  EXPECT_THAT(*Only<engine::AblateNeurons>(result).means, ElementsAre(4, 5, 6));
  EXPECT_EQ(used_["neuronSets/s"], "ds");
  EXPECT_EQ(used_["vectors/m"], "dm");
  result = Interventions(
      {R"(ablate_neurons { neuron_set: "neuronSets/s" class: NEURON_CLASS_SHARED })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->front().layers, ElementsAre(0));
  EXPECT_EQ(Only<engine::AblateNeurons>(result).means, nullptr);
  result = Interventions(
      {"site: SITE_ATTENTION_HEADS ablate_neurons { neurons { layer: 3 index: 1 } }"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->front().site, model::Site::kAttentionHeads);
  const auto nothing = Interventions({R"(layers { list { layers: 3 } }
      scale_neurons { factor: 2 neuron_set: "neuronSets/s" })"});
  EXPECT_EQ(DetailsOf(nothing.status()).reason, "INTERVENTION_TOUCHES_NOTHING");
  EXPECT_EQ(DetailsOf(nothing.status()).field, "interventions[0].scale_neurons.neuron_set");
}

TEST_F(InterventionCodecTest, EveryMistakeNamesItsFieldAndWhatIsAllowed) {
  const std::string all = "layers { all: true } ";
  const std::string project = "interventions[0].project_out", clamp = "interventions[0].clamp";
  ExpectRefused(all + "project_out { }", project, "vectors or a tensor");
  ExpectRefused(all + R"(project_out { vectors: "vectors/v" )" + Counting({2}) + "}", project,
                "either");
  ExpectRefused(all + "project_out { strength: 1.5 " + Counting({2}) + "}", project + ".strength",
                "0 to 1");
  ExpectRefused(all + "project_out { strength: nan " + Counting({2}) + "}", project + ".strength",
                "0 to 1");
  ExpectRefused(all + "project_out { " + Counting({3, 1, 2}) + "}", project + ".tensor.shape",
                "[4, directions, 2] with 1 to 64 directions");
  ExpectRefused(all + "project_out { " + Counting({4, 0, 2}) + "}", project + ".tensor.shape",
                "1 to 64");
  ExpectRefused(all + R"(project_out { vectors: "vectors/v" })", project + ".vectors[0]",
                "no row for layer 0");
  ExpectRefused(all + "clamp { " + Counting({2}) + "}", clamp + ".value", "required");
  ExpectRefused(all + "clamp { value: 1 }", clamp, "vector or a tensor");
  ExpectRefused(all + "clamp { value: 1 " + Counting({3}) + "}", clamp + ".tensor.shape", "[2]");

  const std::string scale = "interventions[0].scale_neurons";
  const std::string one = "neurons { layer: 1 index: 1 } ";
  ExpectRefused("scale_neurons { " + one + "}", scale + ".factor", "required");
  ExpectRefused("scale_neurons { factor: 1 }", scale, "neurons or a neuron_set");
  ExpectRefused("scale_neurons { factor: 1 neurons { layer: 4 } }", scale + ".neurons[0].layer",
                "0 to 3");
  ExpectRefused("scale_neurons { factor: 1 neurons { layer: -1 } }", scale + ".neurons[0].layer",
                "0 to 3");
  ExpectRefused("scale_neurons { factor: 1 " + one + "neurons { index: 3 } }",
                scale + ".neurons[1].index", "0 to 2");
  ExpectRefused("site: SITE_ATTENTION_HEADS scale_neurons { factor: 1 neurons { index: 2 } }",
                scale + ".neurons[0].index", "0 to 1");
  ExpectRefused("scale_neurons { factor: 1 " + one + one + "}", scale + ".neurons[1]", "twice");
  ExpectRefused(R"(scale_neurons { factor: 1 neuron_set: "neuronSets/s" )" + one + "}",
                scale + ".neuron_set", "unset");
  ExpectRefused("scale_neurons { factor: 1 class: NEURON_CLASS_SHARED " + one + "}",
                scale + ".class", "neuron_set");
  ExpectRefused("site: SITE_RESIDUAL_POST scale_neurons { factor: 1 " + one + "}",
                "interventions[0].site", "MLP_NEURONS or ATTENTION_HEADS");
  ExpectRefused(
      R"(site: SITE_ATTENTION_HEADS scale_neurons { factor: 1 neuron_set: "neuronSets/s" })",
      scale + ".neuron_set", "MLP_NEURONS");
  ExpectRefused("layers { list { layers: 0 } } scale_neurons { factor: 1 " + one + "}",
                scale + ".neurons", "touch nothing");

  const std::string ablate = "interventions[0].ablate_neurons";
  ExpectRefused("ablate_neurons { mode: ABLATION_MODE_MEAN " + one + "}", ablate + ".reference",
                "required");
  ExpectRefused(R"(ablate_neurons { reference: "vectors/m" )" + one + "}", ablate + ".reference",
                "only with");
  ExpectRefused(R"(ablate_neurons { mode: ABLATION_MODE_MEAN reference: "vectors/m" )" + one + "}",
                ablate + ".reference", "no row for layer 1");
  ExpectRefused(R"(ablate_neurons { mode: ABLATION_MODE_MEAN reference: "vectors/v" )" + one + "}",
                ablate + ".reference", "another site");
  ExpectRefused("ablate_neurons { mode: 7 " + one + "}", ablate + ".mode", "ZERO or MEAN");

  const std::string replace = "interventions[0].replace.tensor";
  ExpectRefused(all + "replace { }", replace, "required");
  ExpectRefused(all + "replace { " + Counting({4, 2, 2}) + "}", replace + ".shape", "positions");
  ExpectRefused(all + "tokens { positions: 0 positions: 1 positions: 2 } replace { " +
                    Counting({4, 2, 2}) + "}",
                replace + ".shape", "3 positions");
}

TEST_F(InterventionCodecTest, AResourceIsReadOnceHoweverManyNameIt) {
  std::vector<std::string> all(
      20, R"(layers { list { layers: 1 layers: 3 } } project_out { vectors: "vectors/v"
                                                                  vectors: "vectors/v" })");
  all.resize(40, R"(layers { list { layers: 3 } } add { vector: "vectors/v" })");
  all.resize(60, R"(scale_neurons { neuron_set: "neuronSets/s" factor: 2 })");
  const auto result = Interventions(all);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(resources_.reads, 2);
  // And what they take of it is there once.
  const auto rows_of = [&](size_t i) {
    return std::get<engine::AddVector>((*result)[i].operation).rows;
  };
  EXPECT_THAT(*rows_of(20), ElementsAre(30, 31));
  EXPECT_EQ(rows_of(20), rows_of(39));
  const auto neurons_of = [&](size_t i) {
    return &std::get<engine::ScaleNeurons>((*result)[i].operation).neurons[0].values();
  };
  EXPECT_EQ(neurons_of(40), neurons_of(59));
}

TEST_F(InterventionCodecTest, WhatIsTooLargeIsRefusedBeforeAnythingIsRead) {
  // Bytes of rows: width of the site x layers x rows that each of them needs.
  struct Case {
    std::string text;
    int64_t rows;
  };
  const std::vector<Case> cases = {
      {R"(layers { list { layers: 1 layers: 3 } } add { vector: "vectors/v" })", 2 * 2 * 4},
      {R"(layers { list { layers: 3 } } add { vector: "vectors/v" coefficient: 0 })", 0},
      {R"(layers { list { layers: 3 } } clamp { vector: "vectors/v" value: 1 })", 2 * 4},
      {R"(layers { all: true } project_out { source_layer: 1 vectors: "vectors/v"
                                             vectors: "vectors/v" vectors: "vectors/v" })",
       3 * 4 * 2 * 4},
      {"layers { all: true } project_out { " + Counting({4, 2, 2}) + " }", 2 * 4 * 2 * 4},
      {std::string("layers { all: true } replace { ") + kPair + " }", 2 * 4 * 2 * 4},
      {R"(scale_neurons { neuron_set: "neuronSets/s" factor: 2 })", 2 * 2 * 3 * 4},
      {R"(scale_neurons { neuron_set: "neuronSets/s" class: NEURON_CLASS_SHARED factor: 2 })",
       2 * 3 * 4},
      {R"(ablate_neurons { neurons { layer: 1 index: 2 } neurons { layer: 1 index: 0 } })",
       2 * 3 * 4},
      {R"(ablate_neurons { neuron_set: "neuronSets/s" mode: ABLATION_MODE_MEAN
                           reference: "vectors/m" } layers { list { layers: 0 } })",
       2 * 3 * 4},
  };
  for (const Case& one : cases) {
    for (const int count : {1, 64}) {
      engine_->intervention_bytes = count * one.rows;
      const std::vector<std::string> all(static_cast<size_t>(count), one.text);
      EXPECT_TRUE(Interventions(all).ok()) << one.text << Interventions(all).status();
      resources_.reads = 0;
      engine_->intervention_bytes -= 1;
      EXPECT_EQ(DetailsOf(Interventions(all).status()).reason, "INTERVENTIONS_TOO_LARGE")
          << one.text;
      EXPECT_EQ(resources_.reads, 0);
    }
  }
}

TEST_F(InterventionCodecTest, HostMemoryIsTakenBeforeAnythingIsReadAndHeldByTheResult) {
  engine_->request_memory = MemoryLedger(10'000);
  const std::string add = R"(layers { list { layers: 1 layers: 3 } } add { vector: "vectors/v" })";
  ASSERT_TRUE(Interventions({add}).ok());
  EXPECT_GE(engine_->request_memory.used(), 2 * 2 * 4);
  EXPECT_EQ(engine_->request_memory.used(), memory_->bytes());
  const auto others = *engine_->request_memory.Take(10'000 - engine_->request_memory.used());
  resources_.reads = 0;
  const auto refused = Interventions({add}).status();
  EXPECT_EQ(DetailsOf(refused).reason, "REQUEST_MEMORY_FULL") << refused;
  EXPECT_EQ(resources_.reads, 0);
  memory_ = nullptr;
  EXPECT_TRUE(Interventions({add}).ok());
}

}  // namespace
}  // namespace valuescope::services

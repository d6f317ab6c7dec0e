// What people type, and what they are told when they mistype it.
#include "arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace valuescope::command_line {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

TEST(Layers, AreNumbersRangesAndLists) {
  EXPECT_THAT(ParseLayers("14")->list().layers(), ElementsAre(14));
  EXPECT_THAT(ParseLayers("10-12")->list().layers(), ElementsAre(10, 11, 12));
  EXPECT_THAT(ParseLayers("7-9,3,8")->list().layers(), ElementsAre(3, 7, 8, 9));
  EXPECT_TRUE(ParseLayers("all")->all());
}

TEST(Layers, RefuseWhatIsNoChoice) {
  for (const char* text : {"", "-1", "3-1", "a", "1-2-3", "3,", "1e3", "99999999999"}) {
    const auto layers = ParseLayers(text);
    ASSERT_FALSE(layers.ok()) << text;
    EXPECT_THAT(std::string(layers.status().message()), HasSubstr("3,5,7-9")) << text;
  }
}

TEST(Steering, HasANameACoefficientAndLayers) {
  const auto steering = ParseSteering("vectors/ab-c:-6.5@14", "generated");
  ASSERT_TRUE(steering.ok()) << steering.status();
  EXPECT_EQ(steering->intervention.add().vector(), "vectors/ab-c");
  EXPECT_EQ(steering->intervention.add().coefficient(), -6.5f);
  EXPECT_THAT(steering->intervention.layers().list().layers(), ElementsAre(14));
  EXPECT_EQ(steering->intervention.tokens().kind(), v1::TOKEN_KIND_GENERATED);
  EXPECT_EQ(ParseSteering("abc:1@all", "all")->intervention.add().vector(), "vectors/abc");
}

TEST(Steering, RefusesWhatIsNone) {
  for (const char* text : {"vectors/a", "vectors/a@3", "vectors/a:x@3", ":3@4", "vectors/a:nan@3",
                           "vectors/a:inf@3"}) {
    EXPECT_FALSE(ParseSteering(text, "all").ok()) << text;
  }
  EXPECT_THAT(std::string(ParseSteering("vectors/a:1@3", "everywhere").status().message()),
              HasSubstr("from_last_prompt"));
}

v1::Intervention Edit(absl::string_view text) {
  const auto edit = ParseEdit(text, "all");
  EXPECT_TRUE(edit.ok()) << edit.status();
  return edit.value_or(ParsedEdit()).intervention;
}

TEST(Edits, HaveOneFormAnOperation) {
  v1::Intervention edit = Edit("add:vectors/a:-2@3/mlp_output");
  EXPECT_EQ(edit.add().vector(), "vectors/a");
  EXPECT_EQ(edit.add().coefficient(), -2);
  EXPECT_EQ(edit.site(), v1::SITE_MLP_OUTPUT);
  EXPECT_THAT(edit.layers().list().layers(), ElementsAre(3));
  EXPECT_EQ(edit.tokens().kind(), v1::TOKEN_KIND_ALL);
  edit = Edit("project_out:vectors/a+b:0.5@all");
  EXPECT_THAT(edit.project_out().vectors(), ElementsAre("vectors/a", "vectors/b"));
  EXPECT_EQ(edit.project_out().strength(), 0.5f);
  EXPECT_EQ(edit.site(), v1::SITE_UNSPECIFIED);
  EXPECT_EQ(Edit("project_out:a@all").project_out().strength(), 1);
  edit = Edit("clamp:a:0@10-11");
  EXPECT_TRUE(edit.clamp().has_value());
  EXPECT_EQ(edit.clamp().vector(), "vectors/a");
  edit = Edit("scale_neurons:3/17+4/0:0.5@all");
  ASSERT_EQ(edit.scale_neurons().neurons_size(), 2);
  EXPECT_EQ(edit.scale_neurons().neurons(0).layer(), 3);
  EXPECT_EQ(edit.scale_neurons().neurons(0).index(), 17);
  EXPECT_EQ(edit.scale_neurons().factor(), 0.5f);
  edit = Edit("ablate_neurons:neuronSets/s=shared@all");
  EXPECT_EQ(edit.ablate_neurons().neuron_set(), "neuronSets/s");
  EXPECT_EQ(edit.ablate_neurons().class_(), v1::NEURON_CLASS_SHARED);
  EXPECT_EQ(edit.ablate_neurons().mode(), v1::ABLATION_MODE_ZERO);
  edit = Edit("ablate_neurons:2/1:means@all/attention_heads");
  EXPECT_EQ(edit.ablate_neurons().mode(), v1::ABLATION_MODE_MEAN);
  EXPECT_EQ(edit.ablate_neurons().reference(), "vectors/means");
  EXPECT_EQ(edit.site(), v1::SITE_ATTENTION_HEADS);
}

TEST(Edits, LeaveLayersOutAtSitesThatHaveNone) {
  for (const char* site : {"embedding", "final_norm", "logits"}) {
    for (const char* layers : {"all", ""}) {
      const v1::Intervention edit = Edit(absl::StrCat("add:a:1@", layers, "/", site));
      EXPECT_EQ(edit.site(), *ParseSite(site));
      EXPECT_FALSE(edit.has_layers()) << site << layers;
    }
    const auto numbered = ParseEdit(absl::StrCat("add:a:1@3/", site), "all");
    ASSERT_FALSE(numbered.ok());
    EXPECT_EQ(numbered.status().message(),
              absl::StrCat("'3' chooses layers, but ", site, " has none; write all"));
  }
}

// A file of zeros for as long as it lives.
class NumbersFile {
 public:
  explicit NumbersFile(size_t elements) {
    std::ofstream(path, std::ios::binary) << std::string(elements * sizeof(float), '\0');
  }
  ~NumbersFile() { std::remove(path.c_str()); }
  const std::string path = ::testing::TempDir() + "/numbers.f32";
};

// 12 layers; the residual stream is 6 wide, the neurons 8, and there are 10 tokens.
v1::Model Model() {
  v1::Model model;
  model.set_name("models/m");
  model.set_num_layers(12);
  for (const auto& [site, width] :
       {std::pair(v1::SITE_RESIDUAL_POST, 6), std::pair(v1::SITE_MLP_NEURONS, 8),
        std::pair(v1::SITE_LOGITS, 10)}) {
    v1::SiteShape& shape = *model.add_sites();
    shape.set_site(site);
    shape.set_width(width);
  }
  return model;
}

// The shape that a file of so many numbers gets; `edit` says FILE where its name goes.
absl::StatusOr<std::vector<int64_t>> Shape(absl::string_view edit, size_t elements) {
  const NumbersFile file(elements);
  auto parsed = ParseEdit(absl::StrReplaceAll(edit, {{"FILE", "file:" + file.path}}), "all");
  if (!parsed.ok()) return parsed.status();
  if (absl::Status shaped = ShapeRows(Model(), *parsed); !shaped.ok()) return shaped;
  const v1::Intervention& intervention = parsed->intervention;
  const v1::Tensor& rows = intervention.has_add()           ? intervention.add().tensor()
                           : intervention.has_clamp()       ? intervention.clamp().tensor()
                           : intervention.has_project_out() ? intervention.project_out().tensor()
                                                            : intervention.replace().tensor();
  return std::vector<int64_t>(rows.shape().begin(), rows.shape().end());
}

TEST(Files, AreOneRowWhereTheyHoldTheSitesWidth) {
  EXPECT_THAT(*Shape("add:FILE:1@3-5", 6), ElementsAre(6));  // 3 layers divide 6
  EXPECT_THAT(*Shape("add:FILE:1@all", 6), ElementsAre(6));
  EXPECT_THAT(*Shape("replace:FILE@4-5/mlp_neurons", 8), ElementsAre(8));
  EXPECT_THAT(*Shape("replace:FILE@all/logits", 10), ElementsAre(10));
}

TEST(Files, AreARowALayerWhereTheyHoldThatMany) {
  EXPECT_THAT(*Shape("add:FILE:1@3-5", 18), ElementsAre(3, 6));
  EXPECT_THAT(*Shape("clamp:FILE:1@all", 72), ElementsAre(12, 6));
  EXPECT_THAT(*Shape("project_out:FILE@1,3/mlp_neurons", 16), ElementsAre(2, 8));
}

TEST(Files, OfAnyOtherSizeAreRefusedByNameAndNumbers) {
  const std::string message(Shape("add:FILE:1@3-5", 12).status().message());
  EXPECT_THAT(message, HasSubstr("numbers.f32' holds 12 numbers; here it needs 6 (one row) or 18 "
                                 "(one row for each of 3 layers)"));
  EXPECT_THAT(std::string(Shape("add:FILE:1@3", 12).status().message()),
              EndsWith("here it needs 6 (one row)"));
  EXPECT_FALSE(Shape("replace:FILE@all/logits", 120).ok());
  EXPECT_FALSE(ParseSteering("file:/nowhere/rows:2@4", "all").ok());
}

TEST(Edits, RefuseWhatIsNoneAndShowTheForms) {
  for (const char* text :
       {"", "add", "add:a", "add:@3", "wish:a:1@3", "clamp:a@3", "clamp:a:x@3", "clamp:a:nan@3",
        "scale_neurons:3/17@all", "scale_neurons:3:1@all", "scale_neurons:a/b:1@all", "replace:a@3",
        "replace:file:@3", "add:file::1@3"}) {
    const auto edit = ParseEdit(text, "all");
    EXPECT_FALSE(edit.ok()) << text;
    EXPECT_THAT(std::string(edit.status().message()), HasSubstr("ablate_neurons:NEURONS")) << text;
  }
  EXPECT_THAT(std::string(ParseEdit("add:a:1@3/nowhere", "all").status().message()),
              HasSubstr("residual_mid"));
  EXPECT_THAT(
      std::string(ParseEdit("ablate_neurons:neuronSets/s=grand@3", "all").status().message()),
      HasSubstr("shared"));
}

TEST(Neurons, AreLayersAndIndices) {
  const auto neurons = ParseNeurons("3/17+0/2");
  ASSERT_TRUE(neurons.ok()) << neurons.status();
  ASSERT_EQ(neurons->size(), 2u);
  EXPECT_EQ((*neurons)[0].layer(), 3);
  EXPECT_EQ((*neurons)[0].index(), 17);
  EXPECT_EQ((*neurons)[1].index(), 2);
  for (const char* text : {"", "3", "3/", "a/1", "3/1/2", "3/1+", "3.1"}) {
    EXPECT_THAT(std::string(ParseNeurons(text).status().message()), HasSubstr("LAYER/INDEX"))
        << text;
  }
}

TEST(NeuronSets, AreNamesAndClasses) {
  EXPECT_EQ(ParseNeuronSet("s")->neuron_set(), "neuronSets/s");
  const auto filter = ParseNeuronSet("neuronSets/s=prompted");
  ASSERT_TRUE(filter.ok()) << filter.status();
  EXPECT_EQ(filter->neuron_set(), "neuronSets/s");
  EXPECT_EQ(filter->class_(), v1::NEURON_CLASS_PROMPTED);
  EXPECT_THAT(std::string(ParseNeuronSet("neuronSets/s=grand").status().message()),
              HasSubstr("shared"));
}

TEST(Neurons, AreGivenOneByOneOrAsASet) {
  v1::TestNeuronsRequest request;
  ParseNeuronsOrSet("3/17+0/2")->PutInto(request);
  ASSERT_EQ(request.neurons_size(), 2);
  EXPECT_EQ(request.neurons(0).layer(), 3);
  EXPECT_EQ(request.neurons(0).index(), 17);
  ParseNeuronsOrSet("neuronSets/s=shared")->PutInto(request);
  EXPECT_EQ(request.neurons_size(), 0);
  EXPECT_EQ(request.neuron_set(), "neuronSets/s");
  EXPECT_EQ(request.class_(), v1::NEURON_CLASS_SHARED);
  for (const char* text : {"", "3", "3/x", "3/1/2", "3/1,3/2"}) {
    EXPECT_THAT(std::string(ParseNeuronsOrSet(text).status().message()), HasSubstr("LAYER/INDEX"))
        << text;
  }
}

TEST(Names, AreCompletedAndChecked) {
  EXPECT_EQ(ResourceName("models", "x"), "models/x");
  EXPECT_EQ(ResourceName("models", "models/x"), "models/x");
  EXPECT_EQ(*ParseSite("mlp_neurons"), v1::SITE_MLP_NEURONS);
  EXPECT_THAT(std::string(ParseSite("unspecified").status().message()), HasSubstr("residual_post"));
  EXPECT_EQ(*ParseReduction("mean"), v1::REDUCTION_MEAN);
}

TEST(Help, ListsEverySiteAndWhichHaveNoLayers) {
  EXPECT_EQ(SitesHelp(),
            "sites: residual_pre, residual_mid, residual_post, attention_heads, attention_output, "
            "mlp_neurons, mlp_output\n"
            "sites without layers, where all stands for none: embedding, final_norm, logits");
}

}  // namespace
}  // namespace valuescope::command_line

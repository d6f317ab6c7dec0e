// Steering sweeps: the grid and what each point changes, and jobs that are cut and resumed
// anywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/random_direction.h"
#include "base/error.h"
#include "base/number_bytes.h"
#include "kinds/generated_responses.h"
#include "kinds/sweep_grid.h"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/early_shard.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

using ::testing::ElementsAre;

// --- The grid ------------------------------------------------------------------------------------

// A vector and neurons of blocks 2 and 5 at two angles; of the second they are in block 5 alone.
SavedSweep GridOf(bool together) {
  SavedSweep sweep;
  for (const int layer : {2, 5}) sweep.add_layers(layer);
  sweep.set_layers_together(together);
  for (const float coefficient : {-1.f, 2.f}) sweep.add_coefficients(coefficient);
  sweep.add_factors(0);
  sweep.add_scopes()->set_kind(v1::TOKEN_KIND_ALL);
  sweep.add_scopes();
  sweep.set_num_random(2);
  sweep.set_seed(7);
  SavedSweepSubject& vector = *sweep.add_subjects();
  vector.set_name("vectors/v");
  vector.set_vector("vectors/v");
  for (const double norm : {3., 4.}) vector.add_norms(norm);
  SavedSweepSubject& neurons = *sweep.add_subjects();
  neurons.set_name("classes[0]");
  for (const int variant : {0, 1}) {
    SavedNeurons& of = *neurons.add_neurons();
    of.set_top_percent(1);
    of.set_max_angle(variant == 0 ? 30 : 10);
    for (const int layer : {2, 5}) {
      if (variant == 1 && layer == 2) continue;
      SavedLayerNeurons& here = *of.add_layers();
      here.set_layer(layer);
      for (const int index : {4, 9, 30}) here.add_indices(index + layer);
    }
  }
  return sweep;
}

analysis::NeuronMatching Matching() {
  constexpr int kNeurons = 64;
  static std::vector<float> norms, magnitudes;
  for (int i = 0; i < 2 * kNeurons; ++i) {
    norms.push_back(1 + static_cast<float>(i % 17));
    magnitudes.push_back(1 + static_cast<float>(i * 7 % 23));
  }
  const std::span<const float> n(norms.data(), 2 * kNeurons), m(magnitudes.data(), 2 * kNeurons);
  const std::vector<analysis::NeuronTraits> blocks = {
      {.norms = n.first(kNeurons), .magnitudes = m.first(kNeurons)},
      {.norms = n.last(kNeurons), .magnitudes = m.last(kNeurons)}};
  return *analysis::NeuronMatching::Of(blocks);
}

TEST(SweepGrid, HasEverySubjectRandomOneLayerScopeAndStrength) {
  const SavedSweep sweep = GridOf(/*together=*/false);
  const SweepGrid grid(sweep, /*width=*/8);
  // Vector: 3 x 2 layers x 2 scopes x 2; neurons: 3 x (2 + 1 layers) x 2 scopes x 1.
  ASSERT_EQ(grid.size(), 24 + 18);
  std::set<std::string> names;
  for (int64_t i = 0; i < grid.size(); ++i) names.insert(grid.PointAt(i).name());
  EXPECT_EQ(names.size(), grid.size());
  EXPECT_EQ(grid.PointAt(0).name(), "vectors/v*-1@2/scope0");
  EXPECT_EQ(grid.PointAt(24).name(), "classes[0][k=1,angle=30]*0@2/scope0");
  const v1::SweepPoint last = grid.PointAt(grid.size() - 1);
  EXPECT_EQ(last.random(), 1);
  EXPECT_EQ(last.max_angle(), 10);
  EXPECT_THAT(last.layers(), ElementsAre(5));
  EXPECT_EQ(last.num_neurons(), 3);
  EXPECT_EQ(last.scope(), 1);
  EXPECT_FALSE(last.has_coefficient());
  EXPECT_EQ(last.factor(), 0);
}

TEST(SweepGrid, LayersTogetherAreOnePoint) {
  const SavedSweep sweep = GridOf(/*together=*/true);
  const SweepGrid grid(sweep, /*width=*/8);
  EXPECT_EQ(grid.size(), 3 * 2 * 2 + 3 * 2 * 2);
  EXPECT_THAT(grid.PointAt(0).layers(), ElementsAre(2, 5));
  const Interventions own = grid.InterventionsAt(0, nullptr);
  ASSERT_EQ(own.size(), 1);
  EXPECT_THAT(own[0].layers().list().layers(), ElementsAre(2, 5));
  EXPECT_EQ(own[0].add().vector(), "vectors/v");
  EXPECT_EQ(own[0].add().coefficient(), -1);
  EXPECT_EQ(own[0].tokens().kind(), v1::TOKEN_KIND_ALL);
}

TEST(SweepGrid, RandomDirectionsHaveTheVectorsNormAndASeedOfTheirOwn) {
  const SavedSweep one = GridOf(/*together=*/false), all = GridOf(/*together=*/true);
  const SweepGrid grid(one, /*width=*/8), together(all, /*width=*/8);
  // Vector 0, direction 0, layer 5 is the second of its layers, coefficient -1.
  const Interventions changes = grid.InterventionsAt(8 + 4, nullptr);
  EXPECT_EQ(grid.PointAt(8 + 4).name(), "vectors/v~random0*-1@5/scope0");
  const v1::AddVector& add = changes[0].add();
  EXPECT_THAT(add.tensor().shape(), ElementsAre(1, 8));
  const std::vector<float> row =
      analysis::RandomDirection(8, /*norm=*/4, SeedOf(SeedOf(SeedOf(7, 0), 0), 5));
  EXPECT_EQ(add.tensor().data(), BytesOfNumbers(row));
  // The same rows where all layers are steered.
  const Interventions of_all = together.InterventionsAt(4, nullptr);
  EXPECT_THAT(of_all[0].add().tensor().shape(), ElementsAre(2, 8));
  EXPECT_EQ(of_all[0].add().tensor().data().substr(8 * sizeof(float)), BytesOfNumbers(row));
}

TEST(SweepGrid, RandomSetsAreThoseThatMatchingDraws) {
  const SavedSweep sweep = GridOf(/*together=*/false);
  const SweepGrid grid(sweep, /*width=*/8);
  const analysis::NeuronMatching matching = Matching();
  std::vector<analysis::PlacedNeuron> given;
  for (const int block : {0, 1}) {
    for (const int index : {4, 9, 30}) {
      given.push_back({.block = block, .index = index + (block == 0 ? 2 : 5)});
    }
  }
  for (const int r : {0, 1}) {
    const analysis::MatchedSet drawn =
        matching.Draw(given, {.seed = SeedOf(SeedOf(7, 1), 0), .draw = static_cast<uint64_t>(r)});
    // Of a random set: at the first angle layers 2 and 5 in both scopes, then layer 5 of the other.
    const int64_t first = 24 + 6 * (1 + r);
    for (const int block : {0, 1}) {
      const Interventions changes = grid.InterventionsAt(first + 2 * block, &matching);
      std::vector<std::pair<int, int>> expected, found;
      for (const analysis::PlacedNeuron& neuron : drawn.neurons) {
        if (neuron.block == block) expected.emplace_back(block == 0 ? 2 : 5, neuron.index);
      }
      for (const v1::NeuronId& id : changes[0].scale_neurons().neurons()) {
        found.emplace_back(id.layer(), id.index());
      }
      EXPECT_EQ(found, expected);
      EXPECT_EQ(found.size(), 3u);
    }
  }
  const Interventions own = grid.InterventionsAt(24, nullptr);
  EXPECT_EQ(own[0].scale_neurons().neurons(1).index(), 11);
  EXPECT_TRUE(own[0].scale_neurons().has_factor());
}

// --- Jobs ----------------------------------------------------------------------------------------

constexpr int kQueries = 20, kQuestions = 8, kRandom = 2;

// Of a vector and, where `neurons`, a set of neurons with random sets.
v1::JobSpec SpecOf(SmallSite& site, bool neurons) {
  v1::JobSpec spec;
  v1::SteeringSweepSpec& sweep = *spec.mutable_steering_sweep();
  sweep.set_model("models/tiny");
  const v1::AttributeNeuronsRequest attribution = site.Attribution(20);
  sweep.add_vectors(attribution.vector());
  for (const float coefficient : {0.f, 2.f}) sweep.add_coefficients(coefficient);
  if (neurons) {
    v1::AttributeNeuronsResponse response;
    EXPECT_EQ(site.neurons.AttributeNeurons(site.context, attribution, &response),
              absl::OkStatus());
    sweep.add_neuron_sets()->set_neuron_set(response.neuron_set().name());
    sweep.add_factors(0);
  }
  sweep.set_random_directions(kRandom);
  v1::SweepEvaluation& answers = *sweep.add_evaluations();
  answers.set_name("answers");
  v1::GenerateResponsesSpec& generation = *answers.mutable_responses()->mutable_generation();
  for (int i = 0; i < kQueries; ++i) generation.add_queries(absl::StrCat("Q", i));
  generation.mutable_sampling()->set_max_tokens(4);
  generation.set_samples_per_query(2);
  generation.mutable_judge()->mutable_word_list()->add_words("t1*");
  answers.mutable_responses()->mutable_measures()->set_perplexity(true);
  v1::SweepEvaluation& choices = *sweep.add_evaluations();
  choices.set_name("choices");
  choices.mutable_choices()->set_reading(v1::CHOICE_READING_CONTINUATIONS);
  for (int i = 0; i < kQuestions; ++i) {
    v1::ChoiceQuestion& question = *choices.mutable_choices()->add_questions();
    question.set_question(absl::StrCat("W", i));
    for (const char* choice : {"A", "BC"}) question.add_choices(choice);
  }
  sweep.mutable_objective()->set_evaluation("answers");
  sweep.mutable_objective()->set_measure("expressing_share");
  return spec;
}

v1::Job Undisturbed(bool neurons) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto name = site.Create(SpecOf(site, neurons));
  EXPECT_TRUE(name.ok()) << name.status();
  site.StartWorker();
  const v1::Job job = site.Await(*name);
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  return job;
}

struct Cut {
  bool neurons = false;
  int64_t after = 0;  // requests of the job
};

class CutSweep : public ::testing::TestWithParam<Cut> {};

TEST_P(CutSweep, ResumesToTheSameBytes) {
  const v1::Job whole = Undisturbed(GetParam().neurons);
  const CutJob cut = CutAndResume([](SmallSite& site) { return SpecOf(site, GetParam().neurons); },
                                  GetParam().after);
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
}

// In the baseline's responses, texts and choices, in its looks, in a point, in the last.
INSTANTIATE_TEST_SUITE_P(Anywhere, CutSweep,
                         ::testing::Values(Cut{false, 33}, Cut{false, 75}, Cut{false, 90},
                                           Cut{false, 400}, Cut{true, 100}, Cut{true, 125},
                                           Cut{true, 300}));

TEST(SteeringSweepKind, CountsPointsUnitsAndShards) {
  const v1::Job job = Undisturbed(/*neurons=*/false);
  constexpr int64_t kPerPoint = 2 * 2 * kQueries + kQuestions;
  constexpr int64_t kPoints = 2 * (1 + kRandom);  // two layers, one coefficient that steers
  EXPECT_EQ(job.progress().unit(), "measurements");
  EXPECT_EQ(job.progress().total(), kPerPoint * (1 + kPoints));
  EXPECT_EQ(job.progress().shards_total(), 1 + kPoints);
  EXPECT_EQ(job.estimate().shards(), 1 + kPoints);
  EXPECT_EQ(SmallSite::Artifacts(job).size(), 3u);
  const auto& summary = job.result().summary().fields();
  EXPECT_EQ(summary.at("num_points").number_value(), kPoints);
  const auto& selected = summary.at("selected").list_value().values(0).struct_value().fields();
  EXPECT_EQ(selected.at("num_random").number_value(), kRandom);
  // The fake model does not hear of steering, so every point is the baseline's equal.
  EXPECT_EQ(selected.at("p_value").number_value(), 1);
}

TEST(SteeringSweepKind, LooksAreUnitsOfTheBaselineThatAllOthersBuildOn) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto name = site.Create(SpecOf(site, /*neurons=*/true));
  ASSERT_TRUE(name.ok()) << name.status();
  const auto job = site.store->GetJob("lab", name->substr(name->find('/') + 1));
  services::Kind& kind = site.registry.Get("steering_sweep");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  const jobs::Extent extent = (*work)->extent();
  constexpr int64_t kPerPoint = 2 * 2 * kQueries + kQuestions, kLooks = 2 * kQueries;
  EXPECT_EQ(extent.preparing.units, kPerPoint + kLooks);
  EXPECT_EQ(extent.UnitsOf(0).size(), kPerPoint + kLooks);
  EXPECT_EQ(extent.UnitsOf(1).size(), kPerPoint);
  EarlyShard early(job->spec, /*shard=*/1);
  early.progress = {{.partial = "", .cursor = "", .work_done = 5}};
  const auto refused = kind.RunShard(early);
  EXPECT_EQ(DetailsOf(refused.status()).reason, "FIRST_SHARD_RUNS");
}

TEST(SteeringSweepKind, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto name = site.Create(SpecOf(site, /*neurons=*/false));
  ASSERT_TRUE(name.ok()) << name.status();
  const auto job = site.store->GetJob("lab", name->substr(name->find('/') + 1));
  services::Kind& kind = site.registry.Get("steering_sweep");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  const auto damaged = [&](const std::function<void(SavedSweep&)>& change) {
    SavedWork record;
    EXPECT_TRUE(record.ParseFromString(job->spec));
    change(*record.mutable_steering_sweep());
    return kind.Open("lab", record.SerializeAsString()).status().code();
  };
  for (const std::function<void(SavedSweep&)>& change :
       std::vector<std::function<void(SavedSweep&)>>{
           [](SavedSweep& sweep) { sweep.clear_layers(); },
           [](SavedSweep& sweep) { sweep.clear_scopes(); },
           [](SavedSweep& sweep) { sweep.clear_subjects(); },
           [](SavedSweep& sweep) { sweep.clear_evaluations(); },
           [](SavedSweep& sweep) { sweep.mutable_subjects(0)->clear_norms(); },
           [](SavedSweep& sweep) { sweep.mutable_evaluations(0)->clear_work(); },
           [](SavedSweep& sweep) {
             sweep.mutable_evaluations(0)->mutable_work()->clear_generation();
           },
           [](SavedSweep& sweep) {
             sweep.mutable_evaluations(1)->mutable_work()->clear_evaluation();
           }}) {
    EXPECT_EQ(damaged(change), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(kind.Open("lab", "").status().code(), absl::StatusCode::kDataLoss);
}

TEST(SteeringSweepKind, MemoryOfAPointIsTakenBeforeItRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto name = site.Create(SpecOf(site, /*neurons=*/false));
  ASSERT_TRUE(name.ok()) << name.status();
  site.engine->most_kept = 1000;
  const auto refused = site.Create(SpecOf(site, /*neurons=*/false));
  EXPECT_EQ(DetailsOf(refused.status()).reason, "CAPTURES_TOO_LARGE");
  const int64_t before = site.engine->submitted;
  site.StartWorker();
  const v1::Job job = site.Await(*name);
  EXPECT_EQ(job.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.error().reason(), "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, before);
}

}  // namespace
}  // namespace valuescope::kinds

#include "rpc/caller.h"

#include <algorithm>
#include <iterator>

namespace valuescope::rpc {
namespace {

struct Row {
  absl::string_view method;
  Role least;
  bool runs_models = false;
};

constexpr bool kRunsModels = true;

// A reader gets what answers from what is stored or known and leaves nothing behind.
constexpr Row kRows[] = {
    {"ActivationService.Capture", Role::kUser, kRunsModels},
    {"ArtifactService.WriteArtifact", Role::kUser},
    {"ArtifactService.GetArtifact", Role::kReader},
    {"ArtifactService.ListArtifacts", Role::kReader},
    {"ArtifactService.ReadArtifact", Role::kReader},
    {"ArtifactService.ReadTable", Role::kReader},
    {"ArtifactService.DeleteArtifact", Role::kUser},
    {"EvaluationService.AskQuestionnaire", Role::kUser, kRunsModels},
    {"EvaluationService.AnswerChoices", Role::kUser, kRunsModels},
    {"EvaluationService.ScoreTaggedResponses", Role::kUser},
    {"EvaluationService.JudgeResponses", Role::kUser, kRunsModels},
    {"EvaluationService.CompareResponses", Role::kUser, kRunsModels},
    {"EvaluationService.MeasureTexts", Role::kUser, kRunsModels},
    {"GenerationService.Generate", Role::kUser, kRunsModels},
    {"GenerationService.StreamGenerate", Role::kUser, kRunsModels},
    {"GenerationService.Score", Role::kUser, kRunsModels},
    {"JobService.CreateJob", Role::kUser},
    {"JobService.GetJob", Role::kReader},
    {"JobService.ListJobs", Role::kReader},
    {"JobService.WatchJob", Role::kReader},
    {"JobService.CancelJob", Role::kUser},
    {"JobService.RetryJob", Role::kUser},
    {"JobService.DeleteJob", Role::kUser},
    {"ModelService.ListModels", Role::kReader},
    {"ModelService.ListReplicas", Role::kReader},
    {"ModelService.GetModel", Role::kReader},
    {"ModelService.LoadModel", Role::kAdmin},
    {"ModelService.UnloadModel", Role::kAdmin},
    {"ModelService.Tokenize", Role::kReader},
    {"ModelService.Detokenize", Role::kReader},
    {"NeuronService.AttributeNeurons", Role::kUser, kRunsModels},
    {"NeuronService.ClassifyNeurons", Role::kUser},
    {"NeuronService.ScoreSelectivity", Role::kUser},
    {"NeuronService.TestNeurons", Role::kUser, kRunsModels},
    {"NeuronService.CompareNeuronSets", Role::kReader},
    {"NeuronService.GetNeuronSet", Role::kReader},
    {"NeuronService.ListNeuronSets", Role::kReader},
    {"NeuronService.DeleteNeuronSet", Role::kUser},
    {"NeuronService.TopContexts", Role::kUser, kRunsModels},
    {"TenantService.PublishResource", Role::kUser},
    {"TenantService.WithdrawResource", Role::kUser},
    {"TenantService.QueryUsage", Role::kReader},
    {"VectorService.ExtractVectors", Role::kUser, kRunsModels},
    {"VectorService.DecomposeVectors", Role::kUser},
    {"VectorService.CompareVectors", Role::kReader},
    {"VectorService.CreateVector", Role::kUser},
    {"VectorService.GetVector", Role::kReader},
    {"VectorService.ListVectors", Role::kReader},
    {"VectorService.DeleteVector", Role::kUser},
    {"VectorService.ImportVectors", Role::kUser},
    {"VectorService.ExportVectors", Role::kReader},
    // gRPC's own.
    {"Health.Check", Role::kReader},
    {"Health.Watch", Role::kReader},
    {"ServerReflection.ServerReflectionInfo", Role::kReader},
};

const Row* RowOf(absl::string_view method) {
  const auto* const row = std::find_if(std::begin(kRows), std::end(kRows),
                                       [&](const Row& row) { return row.method == method; });
  return row == std::end(kRows) ? nullptr : row;
}

}  // namespace

absl::string_view NameOf(Role role) {
  switch (role) {
    case Role::kReader:
      return "reader";
    case Role::kUser:
      return "user";
    case Role::kAdmin:
      break;
  }
  return "admin";
}

std::optional<Role> RoleOfName(absl::string_view name) {
  for (const Role role : {Role::kReader, Role::kUser, Role::kAdmin}) {
    if (NameOf(role) == name) return role;
  }
  return std::nullopt;
}

std::optional<Role> LeastRole(absl::string_view method) {
  const Row* const row = RowOf(method);
  if (row == nullptr) return std::nullopt;
  return row->least;
}

bool RunsModels(absl::string_view method) {
  const Row* const row = RowOf(method);
  return row != nullptr && row->runs_models;
}

}  // namespace valuescope::rpc

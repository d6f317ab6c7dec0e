#include "rpc/caller.h"

#include <algorithm>
#include <iterator>

namespace valuescope::rpc {
namespace {

struct Row {
  absl::string_view method;
  Role least;
};

// A reader gets what answers from what is stored or known and leaves nothing behind.
constexpr Row kRows[] = {
    {"ActivationService.Capture", Role::kUser},
    {"ArtifactService.WriteArtifact", Role::kUser},
    {"ArtifactService.GetArtifact", Role::kReader},
    {"ArtifactService.ListArtifacts", Role::kReader},
    {"ArtifactService.ReadArtifact", Role::kReader},
    {"ArtifactService.ReadTable", Role::kReader},
    {"ArtifactService.DeleteArtifact", Role::kUser},
    {"EvaluationService.AskQuestionnaire", Role::kUser},
    {"EvaluationService.AnswerChoices", Role::kUser},
    {"EvaluationService.ScoreTaggedResponses", Role::kUser},
    {"EvaluationService.JudgeResponses", Role::kUser},
    {"EvaluationService.CompareResponses", Role::kUser},
    {"EvaluationService.MeasureTexts", Role::kUser},
    {"GenerationService.Generate", Role::kUser},
    {"GenerationService.StreamGenerate", Role::kUser},
    {"GenerationService.Score", Role::kUser},
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
    {"NeuronService.AttributeNeurons", Role::kUser},
    {"NeuronService.ClassifyNeurons", Role::kUser},
    {"NeuronService.ScoreSelectivity", Role::kUser},
    {"NeuronService.TestNeurons", Role::kUser},
    {"NeuronService.CompareNeuronSets", Role::kReader},
    {"NeuronService.GetNeuronSet", Role::kReader},
    {"NeuronService.ListNeuronSets", Role::kReader},
    {"NeuronService.DeleteNeuronSet", Role::kUser},
    {"NeuronService.TopContexts", Role::kUser},
    {"TenantService.PublishResource", Role::kUser},
    {"TenantService.WithdrawResource", Role::kUser},
    {"TenantService.QueryUsage", Role::kReader},
    {"VectorService.ExtractVectors", Role::kUser},
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
  const auto row = std::find_if(std::begin(kRows), std::end(kRows),
                                [&](const Row& row) { return row.method == method; });
  if (row == std::end(kRows)) return std::nullopt;
  return row->least;
}

}  // namespace valuescope::rpc

// Which model a request names, and that a call's metadata may not say another.
#include "rpc/routed_model.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/generation.pb.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/models.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::rpc {
namespace {

// "FIELD=NAME", or nothing.
std::string Routed(const google::protobuf::Message& request) {
  const auto model = RoutedModelOf(request);
  return model ? model->field + "=" + model->name : "";
}

TEST(RoutedModel, IsWhatARequestNamesWhereverItDoes) {
  v1::GenerateRequest generate;
  EXPECT_EQ(Routed(generate), "");
  generate.set_model("models/a");
  EXPECT_EQ(Routed(generate), "model=models/a");

  v1::GetModelRequest get;
  get.set_name("models/a");
  EXPECT_EQ(Routed(get), "name=models/a");

  v1::ImportVectorsRequest upload;
  upload.set_data("bytes");
  EXPECT_EQ(Routed(upload), "");
  upload.mutable_header()->set_model("models/a");
  EXPECT_EQ(Routed(upload), "header.model=models/a");

  v1::CreateJobRequest job;
  EXPECT_EQ(Routed(job), "");
  job.mutable_spec()->mutable_capture()->set_model("models/a");
  EXPECT_EQ(Routed(job), "spec.capture.model=models/a");
  auto* judge = job.mutable_spec()->mutable_judge_responses();
  judge->mutable_judge()->mutable_rubric()->set_model("models/b");
  EXPECT_EQ(Routed(job), "spec.judge_responses.judge.rubric.model=models/b");
}

TEST(RoutedModel, IsNotTheNameOfSomethingElse) {
  v1::GetVectorRequest vector;
  vector.set_name("vectors/a");
  EXPECT_EQ(Routed(vector), "");
}

TEST(RoutedModel, MayBeLeftOutButNotContradicted) {
  v1::GenerateRequest request;
  request.set_model("models/a");
  EXPECT_TRUE(CheckRoutedModel(request, {}).ok());
  EXPECT_TRUE(CheckRoutedModel(request, {"models/a"}).ok());
  for (const char* other : {"models/b", "a", ""}) {
    const absl::Status status = CheckRoutedModel(request, {"models/a", other});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << other;
    EXPECT_EQ(DetailsOf(status).field, "model");
    EXPECT_EQ(DetailsOf(status).reason, "MODEL_METADATA_DIFFERS");
  }
  EXPECT_TRUE(CheckRoutedModel(v1::ListModelsRequest(), {"models/b"}).ok());
}

}  // namespace
}  // namespace valuescope::rpc

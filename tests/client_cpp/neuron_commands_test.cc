// What commands about neurons ask a server, by a call and by a job, and what a person sees of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "commands.h"
#include "output.h"
#include "tests/client_cpp/fake_server.h"

namespace valuescope::command_line {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

class Neurons : public v1::NeuronService::Service {
 public:
  grpc::Status AttributeNeurons(grpc::ServerContext*, const v1::AttributeNeuronsRequest* got,
                                v1::AttributeNeuronsResponse* response) override {
    attribution = *got;
    *response->mutable_neuron_set() = set;
    return status;
  }
  grpc::Status TestNeurons(grpc::ServerContext*, const v1::TestNeuronsRequest* got,
                           v1::TestNeuronsResponse*) override {
    test = *got;
    return status;
  }
  v1::NeuronSet set;
  grpc::Status status = grpc::Status::OK;
  v1::AttributeNeuronsRequest attribution;
  v1::TestNeuronsRequest test;
};

class Jobs : public v1::JobService::Service {
 public:
  grpc::Status CreateJob(grpc::ServerContext*, const v1::CreateJobRequest* got,
                         v1::CreateJobResponse* response) override {
    request = *got;
    response->mutable_job()->set_name("jobs/7");
    return grpc::Status::OK;
  }
  v1::CreateJobRequest request;
};

// Every character is a token, whose id is its byte.
class Characters : public v1::ModelService::Service {
 public:
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    EXPECT_FALSE(request->add_special_tokens());
    for (const char character : request->prompt().text()) {
      response->add_token_ids(character);
      response->add_pieces(std::string(1, character));
    }
    return grpc::Status::OK;
  }
};

class NeuronCommandsTest : public ::testing::Test {
 protected:
  NeuronCommandsTest() {
    globals.server = server.address();
    attribute.model = "m";
    attribute.data_set = "artifacts/d";
    attribute.method = "causal_ablation";
    test.model = "m";
    test.data_set = "artifacts/d";
    test.neurons = "0/1";
  }

  template <typename Flags>
  int Run(int (*command)(const Globals&, const Flags&), const Flags& flags) {
    CaptureStdout();
    CaptureStderr();
    const int code = command(globals, flags);
    out = GetCapturedStdout();
    err = GetCapturedStderr();
    return code;
  }

  Neurons neurons;
  Jobs jobs;
  Characters characters;
  FakeServer server{&neurons, &jobs, &characters};
  Globals globals;
  AttributeFlags attribute;
  TestFlags test;
  std::string out, err;
};

TEST_F(NeuronCommandsTest, NameNeuronsAsTheyAreTyped) {
  v1::NeuronScore& neuron = *neurons.set.add_top();
  neuron.set_layer(1);
  neuron.set_index(12);
  EXPECT_EQ(Run(AttributeNeurons, attribute), kOk) << err;
  EXPECT_THAT(out, HasSubstr("1/12"));
}

TEST_F(NeuronCommandsTest, ShowClassesWhereThereAreAny) {
  neurons.set.add_top()->set_score(2);
  v1::NeuronClassCount& count = *neurons.set.add_layers()->add_classes();
  count.set_class_(v1::NEURON_CLASS_SHARED);
  EXPECT_EQ(Run(AttributeNeurons, attribute), kOk) << err;
  EXPECT_THAT(out, Not(HasSubstr("CLASS")));
  EXPECT_THAT(out, Not(HasSubstr("unspecified")));
  count.set_count(1);
  neurons.set.mutable_top(0)->set_class_(v1::NEURON_CLASS_SHARED);
  EXPECT_EQ(Run(AttributeNeurons, attribute), kOk) << err;
  EXPECT_THAT(out, HasSubstr("shared 1"));
  EXPECT_THAT(out, HasSubstr("NEURON  SCORE  CLASS"));
}

TEST_F(NeuronCommandsTest, ReadTokensByIdAndByText) {
  attribute.target.positive = {"A", "77"};
  attribute.target.negative = {" "};
  EXPECT_EQ(Run(AttributeNeurons, attribute), kOk) << err;
  const auto& difference = neurons.attribution.target().token_logit_difference();
  EXPECT_THAT(difference.positive_token_ids(), ElementsAre('A', 77));
  EXPECT_THAT(difference.negative_token_ids(), ElementsAre(' '));
  attribute.target.negative = {"no"};
  EXPECT_EQ(Run(AttributeNeurons, attribute), kUsageError);
  EXPECT_THAT(err, HasSubstr("'no' is 2 tokens (n o)"));
}

TEST_F(NeuronCommandsTest, MakeJobsOfTheRequestsOfCalls) {
  attribute.target.positive = {"A"};
  attribute.display_name = "mine";
  EXPECT_EQ(Run(AttributeNeurons, attribute), kOk) << err;
  attribute.job.job = true;
  EXPECT_EQ(Run(AttributeNeurons, attribute), kOk) << err;
  EXPECT_EQ(out, "jobs/7\n");
  EXPECT_EQ(jobs.request.display_name(), "mine");
  neurons.attribution.clear_request_id();  // a job has its own
  EXPECT_EQ(jobs.request.spec().attribute_neurons().SerializeAsString(),
            neurons.attribution.SerializeAsString());

  test.sizes = {1};
  EXPECT_EQ(Run(TestNeurons, test), kOk) << err;
  test.job.job = true;
  EXPECT_EQ(Run(TestNeurons, test), kOk) << err;
  EXPECT_EQ(jobs.request.spec().test_neurons().SerializeAsString(),
            neurons.test.SerializeAsString());
}

TEST_F(NeuronCommandsTest, RankNeuronsByLabelsWhereSeveralAreGiven) {
  test.neurons = "set:neuronSets/s=shared,pairs:0/1+1/2";
  test.signed_scores = true;
  EXPECT_EQ(Run(TestNeurons, test), kOk) << err;
  ASSERT_EQ(neurons.test.rankings_size(), 2);
  EXPECT_TRUE(neurons.test.neurons().empty());
  EXPECT_FALSE(neurons.test.signed_scores());
  const v1::NeuronRanking& set = neurons.test.rankings(0);
  EXPECT_EQ(set.label(), "set");
  EXPECT_EQ(set.neuron_set(), "neuronSets/s");
  EXPECT_EQ(set.class_(), v1::NEURON_CLASS_SHARED);
  EXPECT_TRUE(set.signed_scores());
  EXPECT_EQ(neurons.test.rankings(1).label(), "pairs");
  EXPECT_EQ(neurons.test.rankings(1).neurons_size(), 2);
  test.neurons = "a:0/1,b";
  EXPECT_EQ(Run(TestNeurons, test), kUsageError);
}

TEST_F(NeuronCommandsTest, TellAWrongCommandLineFromARequestThatIsRefused) {
  neurons.status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no");
  EXPECT_EQ(Run(AttributeNeurons, attribute), kRequestRefused);
  attribute.data_set = "/nowhere/responses.jsonl";
  EXPECT_EQ(Run(AttributeNeurons, attribute), kUsageError);
  EXPECT_THAT(err, HasSubstr("cannot read '/nowhere/responses.jsonl'"));
}

}  // namespace
}  // namespace valuescope::command_line

#include "studies/message_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {
namespace {

using nlohmann::json;

v1::ExtractVectorsRequest Request() {
  v1::ExtractVectorsRequest request;
  request.set_model("models/m");
  request.add_responses()->set_query_id("q");
  request.set_bootstrap_samples(0);
  v1::Intervention& steer = *request.add_interventions();
  steer.set_site(v1::SITE_RESIDUAL_POST);
  steer.mutable_layers()->mutable_list()->add_layers(3);
  steer.mutable_add()->set_coefficient(0.5f);
  steer.mutable_add()->mutable_tensor()->set_dtype(v1::DATA_TYPE_FLOAT32);
  steer.mutable_add()->mutable_tensor()->add_shape(2);
  steer.mutable_add()->mutable_tensor()->set_data("12345678");
  return request;
}

TEST(RequestRecordTest, HoldsWhatWasChosenAndDigestsOfNumbers) {
  const std::string text = RecordOfRequest(Request(), {"model", "responses"});
  EXPECT_EQ(text.find("12345678"), std::string::npos);
  EXPECT_EQ(json::parse(text), json::parse(R"({
    "bootstrap_samples": 0,
    "interventions": [{
      "site": "SITE_RESIDUAL_POST",
      "layers": {"list": {"layers": [3]}},
      "add": {
        "tensor": {"dtype": "DATA_TYPE_FLOAT32", "shape": [2], "sha256": ")" +
                                           Sha256Hex("12345678") + R"("},
        "coefficient": 0.5
      }
    }]
  })"));
}

TEST(RequestRecordTest, EqualRequestsGiveEqualTextAndOtherNumbersAnother) {
  v1::ExtractVectorsRequest other = Request();
  EXPECT_EQ(RecordOfRequest(other, {}), RecordOfRequest(Request(), {}));
  other.mutable_interventions(0)->mutable_add()->mutable_tensor()->set_data("12345679");
  EXPECT_NE(RecordOfRequest(other, {}), RecordOfRequest(Request(), {}));
}

TEST(RequestRecordTest, LongListsStandAsTheirLengthAndDigest) {
  v1::ExtractVectorsRequest request = Request();
  auto& neurons = *request.mutable_interventions(0)->mutable_scale_neurons()->mutable_neurons();
  for (int i = 0; i < 100'000; ++i) neurons.Add()->set_index(i);
  const std::string text = RecordOfRequest(request, {"model", "responses"});
  EXPECT_LT(text.size(), 8192u);
  const json record = json::parse(text);
  EXPECT_EQ(record["interventions"][0]["scale_neurons"]["neurons"]["count"], 100'000);
  neurons.Mutable(7)->set_index(8);
  EXPECT_NE(RecordOfRequest(request, {"model", "responses"}), text);
}

TEST(MessageJsonTest, NumbersAreSaidAndWhatElseIsUnsetIsNot) {
  v1::NeuronSetLayer layer;
  layer.set_num_neurons(int64_t{1} << 62);
  EXPECT_EQ(MessageToJson(layer).dump(),
            R"({"layer":0,"num_neurons":4611686018427387904,"num_members":0,)"
            R"("score_sum":0.0,"score_min":0.0,"score_max":0.0})");
  layer.set_completeness_gap(0);
  layer.add_classes()->set_class_(v1::NEURON_CLASS_SHARED);
  EXPECT_EQ(MessageToJson(layer).dump(),
            R"({"layer":0,"num_neurons":4611686018427387904,"num_members":0,)"
            R"("classes":[{"class":"NEURON_CLASS_SHARED","count":0}],)"
            R"("score_sum":0.0,"score_min":0.0,"score_max":0.0,"completeness_gap":0.0})");
}

TEST(MessageJsonTest, UnsignedSeedsKeepAllTheirDigits) {
  v1::Provenance provenance;
  provenance.add_seeds(18446744073709551615u);
  EXPECT_EQ(MessageToJson(provenance)["seeds"].dump(), "[18446744073709551615]");
}

TEST(MessageJsonTest, AMapStandsInOrderOfItsKeys) {
  v1::Chat chat;
  for (const char* key : {"q", "b", "z", "a", "m"}) {
    (*chat.mutable_template_arguments()->mutable_fields())[key].set_bool_value(true);
  }
  EXPECT_EQ(MessageToJson(chat.template_arguments()).dump(),
            R"({"fields":{"a":{"bool_value":true},"b":{"bool_value":true},)"
            R"("m":{"bool_value":true},"q":{"bool_value":true},"z":{"bool_value":true}}})");
}

}  // namespace
}  // namespace valuescope::studies

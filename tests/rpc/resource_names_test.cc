#include "rpc/resource_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "valuescope/v1/generation.pb.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::rpc {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::set<std::string> NamesOf(const google::protobuf::Message& message) {
  std::set<std::string> names;
  AddResourceNames(message, names);
  return names;
}

TEST(ResourceNamesTest, AreFoundWhereverTheContractHasThem) {
  v1::GenerateRequest request;
  request.set_model("models/org/tiny");
  request.mutable_prompt()->set_text("say vectors/abc");
  request.add_interventions()->mutable_add()->set_vector("vectors/a");
  request.add_interventions()->mutable_add()->set_vector("vectors/b");
  EXPECT_THAT(NamesOf(request), ElementsAre("models/org/tiny", "vectors/a", "vectors/b"));

  v1::DeleteVectorRequest removal;
  removal.set_name("vectors/a");
  EXPECT_THAT(NamesOf(removal), ElementsAre("vectors/a"));
}

TEST(ResourceNamesTest, WhatOnlyLooksLikeOneIsNone) {
  for (const char* text : {"", "vectors", "vectors/", "vectors/../a", "vectors/a/b", "Vectors/a",
                           "vectors/a b", "projects/a", "models/../a", "models//a", "models/a\n"}) {
    v1::GetVectorRequest request;
    request.set_name(text);
    EXPECT_THAT(NamesOf(request), IsEmpty()) << text;
  }
}

TEST(ResourceNamesTest, LongListsAreNotWalkedToTheirEnd) {
  v1::GenerateRequest request;
  for (int i = 0; i < 10'000; ++i) {
    request.add_interventions()->mutable_add()->set_vector(absl::StrCat("vectors/", i));
  }
  EXPECT_THAT(NamesOf(request), testing::SizeIs(kMostResourceNames));
}

}  // namespace
}  // namespace valuescope::rpc

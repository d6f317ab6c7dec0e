// The wires of a forward pass: each has an index of its own, and two names of one value agree.
#include "model/site.h"

#include <gtest/gtest.h>

#include <vector>

#include "model/architecture.h"

namespace valuescope::model {
namespace {

Architecture TwoBlocks() {
  Architecture a;
  a.num_layers = 2;
  return a;
}

TEST(Site, WiresAreNumberedDenselyInTheOrderOfTheForwardPass) {
  const Architecture a = TwoBlocks();
  std::vector<int> indices = {WireIndex({Site::kEmbedding, 0}, a)};
  for (int layer = 0; layer < a.num_layers; ++layer) {
    for (const Site site :
         {Site::kAttentionHeads, Site::kAttentionOutput, Site::kResidualMid, Site::kMlpGate,
          Site::kMlpNeurons, Site::kMlpWritten, Site::kMlpOutput, Site::kResidualPost}) {
      indices.push_back(WireIndex({site, layer}, a));
    }
  }
  indices.push_back(WireIndex({Site::kFinalNorm, 0}, a));
  indices.push_back(WireIndex({Site::kLogits, 0}, a));
  ASSERT_EQ(static_cast<int>(indices.size()), NumWires(a));
  for (int i = 0; i < NumWires(a); ++i) EXPECT_EQ(indices[i], i);
}

TEST(Site, TwoNamesOfOneValueNormaliseToOneWire) {
  EXPECT_EQ(Normalised({Site::kResidualPre, 0}), (Wire{Site::kEmbedding, 0}));
  EXPECT_EQ(Normalised({Site::kResidualPre, 1}), (Wire{Site::kResidualPost, 0}));
  EXPECT_EQ(Normalised({Site::kResidualPost, 1}), (Wire{Site::kResidualPost, 1}));
  EXPECT_EQ(Normalised({Site::kLogits, 1}), (Wire{Site::kLogits, 0}));
}

}  // namespace
}  // namespace valuescope::model

#include "services/tensor_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace valuescope::services {
namespace {

using testing::ElementsAre;

v1::Tensor Floats(std::vector<int64_t> shape, const std::vector<float>& values) {
  v1::Tensor tensor;
  tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_shape()->Assign(shape.begin(), shape.end());
  tensor.set_data(values.data(), values.size() * sizeof(float));
  return tensor;
}

TEST(TensorCodecTest, ATensorIsItsBytes) {
  const auto tensor = TensorFromProto("t", Floats({2, 2}, {1, 2, 3, 4}));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape, ElementsAre(2, 2));
  EXPECT_EQ(tensor->As<float>()[3], 4);
}

TEST(TensorCodecTest, ImpossibleTensorsAreRefusedBeforeAnythingIsAllocated) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  for (const auto& [tensor, field] : std::vector<std::pair<v1::Tensor, std::string>>{
           {Floats({3}, {1, 2}), "t.data"},
           {Floats({}, {1, 2}), "t.data"},
           {Floats({-1}, {}), "t.shape"},
           {Floats({huge, huge}, {1}), "t.shape"},
           {Floats({huge}, {1}), "t.shape"},
           {Floats({1}, {std::nanf("")}), "t"},
           {Floats({2}, {1, std::numeric_limits<float>::infinity()}), "t"},
           {v1::Tensor(), "t.dtype"},
       }) {
    const auto result = TensorFromProto("t", tensor);
    ASSERT_FALSE(result.ok()) << tensor.ShortDebugString();
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailsOf(result.status()).field, field);
  }
  v1::Tensor unknown = Floats({1}, {1});
  unknown.set_dtype(static_cast<v1::DataType>(99));
  EXPECT_FALSE(TensorFromProto("t", unknown).ok());
}

engine::Capture Counting(int64_t layers, int64_t tokens, int64_t width, bool reduced) {
  engine::Capture capture;
  capture.tap_index = 2;
  capture.layers.resize(static_cast<size_t>(layers));
  std::iota(capture.layers.begin(), capture.layers.end(), 10);
  capture.positions.resize(static_cast<size_t>(reduced ? 7 : tokens));
  std::iota(capture.positions.begin(), capture.positions.end(), 100);
  capture.tensor = HostTensor::Zeros(DType::kFloat32, {layers, tokens, width});
  auto values = capture.tensor.MutableAs<float>();
  std::iota(values.begin(), values.end(), 0.0f);
  return capture;
}

std::vector<v1::CaptureChunk> ChunksOf(const engine::Capture& capture, int32_t input_index) {
  std::vector<v1::CaptureChunk> chunks;
  EXPECT_TRUE(ForEachChunk(capture, input_index, [&](v1::CaptureChunk chunk) {
                chunks.push_back(std::move(chunk));
                return absl::OkStatus();
              }).ok());
  return chunks;
}

// Puts chunks together again by layer and position.
void ExpectWhole(const engine::Capture& capture, bool reduced) {
  const int64_t width = capture.tensor.shape[2];
  const auto expected = capture.tensor.As<float>();
  size_t rows = 0;
  for (const v1::CaptureChunk& chunk : ChunksOf(capture, 4)) {
    EXPECT_EQ(chunk.input_index(), 4);
    EXPECT_EQ(chunk.tap_index(), 2);
    EXPECT_LE(static_cast<int64_t>(chunk.tensor().data().size()),
              std::max(kMaxChunkBytes, width * 4));
    ASSERT_EQ(chunk.tensor().shape_size(), 3);
    ASSERT_EQ(chunk.tensor().shape(0), chunk.layers_size());
    const int64_t tokens = chunk.tensor().shape(1);
    if (reduced) {
      EXPECT_EQ(chunk.positions_size(), 7);
    } else {
      ASSERT_EQ(chunk.positions_size(), tokens);
    }
    std::vector<float> values(chunk.tensor().data().size() / sizeof(float));
    std::memcpy(values.data(), chunk.tensor().data().data(), chunk.tensor().data().size());
    for (int layer = 0; layer < chunk.layers_size(); ++layer) {
      for (int64_t token = 0; token < tokens; ++token, ++rows) {
        const int64_t position =
            reduced ? 0 : chunk.positions(static_cast<int>(token)) - capture.positions.front();
        const int64_t row = (chunk.layers(layer) - 10) * capture.tensor.shape[1] + position;
        ASSERT_EQ(values[static_cast<size_t>((layer * tokens + token) * width)],
                  expected[static_cast<size_t>(row * width)]);
      }
    }
  }
  EXPECT_EQ(rows, static_cast<size_t>(capture.tensor.shape[0] * capture.tensor.shape[1]));
}

TEST(TensorCodecTest, CapturesLeaveInPiecesOfAtMostOneMebibyteThatMakeUpTheWhole) {
  ExpectWhole(Counting(2, 3, 5, /*reduced=*/false), false);
  ExpectWhole(Counting(3, 700, 576, /*reduced=*/false), false);    // tokens of one layer split
  ExpectWhole(Counting(30, 20, 1536, /*reduced=*/false), false);   // several layers a chunk
  ExpectWhole(Counting(2, 2, 400'000, /*reduced=*/false), false);  // one row above the limit
  ExpectWhole(Counting(600, 1, 1536, /*reduced=*/true), true);
}

TEST(TensorCodecTest, ATapThatMetNoTokenStillHasAChunk) {
  const auto chunks = ChunksOf(Counting(2, 0, 3, /*reduced=*/false), 0);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_THAT(chunks[0].tensor().shape(), ElementsAre(2, 0, 3));
}

}  // namespace
}  // namespace valuescope::services

// Tensors as typed spans: what fits is seen without a copy, what does not is refused.
#include "valuescope/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <type_traits>

namespace valuescope {
namespace {

using ::testing::ElementsAre;

template <typename T>
class TensorSpanTest : public ::testing::Test {};
using Types = ::testing::Types<float, double, Float16, BFloat16, int32_t, int64_t>;
TYPED_TEST_SUITE(TensorSpanTest, Types);

TYPED_TEST(TensorSpanTest, SeesWhatWasPutInWithoutACopy) {
  const std::vector<TypeParam> elements = {TypeParam{1}, TypeParam{2}, TypeParam{3},
                                           TypeParam{4}, TypeParam{5}, TypeParam{6}};
  const auto tensor = MakeTensor(elements, {2, 3});
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape(), ElementsAre(2, 3));
  const auto span = TensorSpan<TypeParam>(*tensor);
  ASSERT_TRUE(span.ok()) << span.status();
  EXPECT_TRUE(std::equal(span->begin(), span->end(), elements.begin(), elements.end()));
  EXPECT_EQ(static_cast<const void*>(span->data()),
            static_cast<const void*>(tensor->data().data()));
}

TYPED_TEST(TensorSpanTest, RefusesAnotherTypeASizeAndAShapeThatDoNotFit) {
  const std::vector<TypeParam> elements(4);
  v1::Tensor tensor = *MakeTensor(elements, {4});
  if constexpr (std::is_same_v<TypeParam, float>) {
    EXPECT_FALSE(TensorSpan<int32_t>(tensor).ok());
  } else {
    EXPECT_FALSE(TensorSpan<float>(tensor).ok());
  }
  v1::Tensor cut = tensor;
  cut.mutable_data()->pop_back();
  EXPECT_FALSE(TensorSpan<TypeParam>(cut).ok());
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{3}, {-2, -2}, {int64_t{1} << 32, int64_t{1} << 32}, {4, 0}}) {
    tensor.mutable_shape()->Clear();
    tensor.mutable_shape()->Add(shape.begin(), shape.end());
    EXPECT_FALSE(TensorSpan<TypeParam>(tensor).ok()) << ::testing::PrintToString(shape);
    EXPECT_FALSE(MakeTensor(elements, shape).ok()) << ::testing::PrintToString(shape);
  }
}

TEST(Tensors, OfNoElementsAndOfNoAxes) {
  EXPECT_TRUE(TensorElements(*MakeTensor(std::vector<float>(), {3, 0}))->empty());
  EXPECT_THAT(*TensorElements(*MakeTensor(std::vector<float>{7}, {})), ElementsAre(7));
}

TEST(HalfTypes, BecomeExactFloats) {
  EXPECT_EQ(Float16{0x3c00}.ToFloat(), 1.0f);
  EXPECT_EQ(Float16{0xc000}.ToFloat(), -2.0f);
  EXPECT_EQ(Float16{0x7bff}.ToFloat(), 65504.0f);
  EXPECT_EQ(Float16{0x0001}.ToFloat(), 0x1p-24f);
  EXPECT_EQ(Float16{0x83ff}.ToFloat(), -0x1.ff8p-15f);
  EXPECT_TRUE(std::signbit(Float16{0x8000}.ToFloat()));
  EXPECT_EQ(Float16{0x7c00}.ToFloat(), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(Float16{0x7e00}.ToFloat()));
  EXPECT_EQ(BFloat16{0x3f80}.ToFloat(), 1.0f);
  EXPECT_EQ(BFloat16{0xc040}.ToFloat(), -3.0f);
  EXPECT_EQ(BFloat16{0x0001}.ToFloat(), 0x1p-133f);
  EXPECT_TRUE(std::isnan(BFloat16{0x7fc0}.ToFloat()));
  static_assert(!std::is_convertible_v<Float16, float> &&
                !std::is_convertible_v<Float16, BFloat16>);
}

TEST(TensorElements, AreFloatsWhateverTheTypeOfFloat) {
  EXPECT_THAT(*TensorElements(*MakeTensor(std::vector<float>{1, -2}, {2})), ElementsAre(1, -2));
  EXPECT_THAT(*TensorElements(*MakeTensor(std::vector<double>{1, -2}, {2})), ElementsAre(1, -2));
  EXPECT_THAT(*TensorElements(*MakeTensor(std::vector<Float16>{{0x3c00}, {0xc000}}, {2})),
              ElementsAre(1, -2));
  EXPECT_THAT(*TensorElements(*MakeTensor(std::vector<BFloat16>{{0x3f80}, {0xc000}}, {2})),
              ElementsAre(1, -2));
  EXPECT_FALSE(TensorElements(*MakeTensor(std::vector<int32_t>{1}, {1})).ok());
}

}  // namespace
}  // namespace valuescope

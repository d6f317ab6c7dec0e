#include "base/host_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace valuescope {
namespace {

using ::testing::ElementsAre;

HostTensor FromBits(DType dtype, std::vector<uint16_t> bits) {
  return {.dtype = dtype,
          .shape = {static_cast<int64_t>(bits.size())},
          .bytes = std::string(reinterpret_cast<char*>(bits.data()), bits.size() * 2)};
}

TEST(HostTensor, SizesThatOverflowAreRefusedBeforeAllocation) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_FALSE(CheckedByteSize(DType::kFloat32, std::vector<int64_t>{huge, huge}).ok());
  EXPECT_FALSE(CheckedByteSize(DType::kFloat32, std::vector<int64_t>{2, -1}).ok());
  EXPECT_EQ(CheckedByteSize(DType::kBFloat16, std::vector<int64_t>{3, 5}).value(), 30);
  EXPECT_EQ(CheckedByteSize(DType::kFloat64, std::vector<int64_t>{5, 0}).value(), 0);
}

TEST(HostTensor, HalfPrecisionBitsBecomeTheirValues) {
  const auto half = ToFloat32(FromBits(DType::kFloat16, {0x3c00, 0xc000, 0x0001, 0x7c00, 0x7bff}));
  EXPECT_THAT(*half, ElementsAre(1.0f, -2.0f, std::ldexp(1.0f, -24),
                                 std::numeric_limits<float>::infinity(), 65504.0f));
  EXPECT_THAT(*ToFloat32(FromBits(DType::kBFloat16, {0x3f80, 0xc000})), ElementsAre(1.0f, -2.0f));
}

TEST(HostTensor, IntegersAreNotSilentlyReadAsFloats) {
  EXPECT_FALSE(ToFloat32(HostTensor::Zeros(DType::kInt32, {2})).ok());
}

}  // namespace
}  // namespace valuescope

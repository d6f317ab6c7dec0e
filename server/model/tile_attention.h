// Attention in bfloat16 on processors that multiply matrices of it (Intel AMX). A tile is what its
// registers hold: 16 rows of 64 bytes. A pair of blocks is put in the order that they read once for
// all rows that go over it.
//
// It is no less exact than widening everything. Products of two bfloat16 numbers are exact in
// float32, in which they are summed; and a weight, which is float32, is multiplied as the sum of
// two bfloat16 numbers, which keep 16 of its 24 bits, twice what a row keeps in the end.
#ifndef VALUESCOPE_MODEL_TILE_ATTENTION_H_
#define VALUESCOPE_MODEL_TILE_ATTENTION_H_

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "model/attention_rows.h"

namespace valuescope::model::cpu {

// What one thread needs for it.
class TileAttention {
 public:
  // None where this processor, the system or the width of the heads does not allow it.
  static std::optional<TileAttention> Create(int64_t head_dim);

  TileAttention(TileAttention&&) noexcept;
  TileAttention& operator=(TileAttention&&) noexcept;
  ~TileAttention();

  // Attention of 1 to kRowsAtOnce rows, whose outs stand behind each other. Their queries,
  // [head_dim] float32, must be bfloat16 numbers. Returns false, with nothing of use in the outs,
  // if a value that some row sees is not finite: rows that do not see it would come out as NaN.
  bool Attend(std::vector<Row>& rows, const CachedHead<c10::BFloat16>& head,
              const Scoring& scoring);

 private:
  struct Packed;

  explicit TileAttention(std::unique_ptr<Packed> packed);

  std::unique_ptr<Packed> packed_;
};

}  // namespace valuescope::model::cpu

#endif  // VALUESCOPE_MODEL_TILE_ATTENTION_H_

#include "model/tile_attention.h"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "model/half_types.h"

// Functions that use such registers; called only where HasTiles().
#define VS_TILES                                                                    \
  __attribute__((                                                                   \
      target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-" \
             "bf16")))

namespace valuescope::model::cpu {
namespace {

constexpr int64_t kTileRows = 16;
// In a row of a tile.
constexpr int64_t kHalves = 32, kFloats = 16;
constexpr int64_t kRowBytes = 64;

bool HasTiles() {
  static const bool kHas = [] {
    if (!__builtin_cpu_supports("amx-bf16") || !__builtin_cpu_supports("avx512bf16")) return false;
    // Linux saves these registers, 8 KiB, only for processes that ask for it.
    constexpr int64_t kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return kHas;
}

// What the instruction that shapes the registers reads: columns in bytes.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t columns[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// What stands in which register.
enum Register : int {
  kSums = 0,
  kOtherSums = 1,
  kLeft = 2,
  kRight = 3,
  kOtherRight = 4,
  kRest = 5
};

// The compilers' own functions for these instructions do not say that they read and write memory.
#define VS_TILE_LOAD(register, from, stride)                                     \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"                               \
                   :                                                             \
                   : "r"(from), "r"(static_cast<int64_t>(stride)), "i"(register) \
                   : "memory")
#define VS_TILE_STORE(register, to, stride)                                    \
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"                            \
                   :                                                           \
                   : "r"(to), "r"(static_cast<int64_t>(stride)), "i"(register) \
                   : "memory")
#define VS_TILE_ZERO(register) __asm__ volatile("tilezero %%tmm%c0" : : "i"(register))
// sums [rows, 16] float32 += left [rows, 32] times right [32, 16], whose rows stand in twos.
#define VS_TILE_MULTIPLY(sums, left, right) \
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(left), "i"(right))

// Of up to `rows` rows on the left.
VS_TILES void ShapeRegisters(int64_t rows) {
  TileShapes shapes;
  for (const int each : {kSums, kOtherSums, kLeft, kRight, kOtherRight, kRest}) {
    shapes.columns[each] = kRowBytes;
    shapes.rows[each] = kTileRows;
  }
  for (const int each : {kSums, kOtherSums, kLeft, kRest}) {
    shapes.rows[each] = static_cast<uint8_t>(rows);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
}

VS_TILES void ReleaseRegisters() { __asm__ volatile("tilerelease"); }

// Of two times 16 numbers, one behind the other, the first ones, then the second ones, and so on.
VS_TILES VS_INLINED __m512i InTwos(__m512i x) {
  const __m512i even = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x));
  const __m512i odd = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1));
  return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}

}  // namespace

// All of it as tiles are read.
struct alignas(64) TileAttention::Packed {
  explicit Packed(int64_t head_dim)
      : depth((head_dim + kHalves - 1) / kHalves * kHalves),
        queries(static_cast<size_t>(kRowsAtOnce * depth)),
        keys(static_cast<size_t>(kPair * depth)),
        values(static_cast<size_t>(kPair * head_dim)) {}

  // head_dim and zeros up to whole tiles
  const int64_t depth;
  std::vector<c10::BFloat16> queries;  // [kRowsAtOnce, depth]
  // Of each block [depth / 2, 16 keys, 2].
  std::vector<c10::BFloat16> keys;
  // Of each 16 dimensions [kPair / 2, 16 dimensions, 2].
  std::vector<c10::BFloat16> values;
  PairWeights weights[kTileRows] = {};
  // A weight is about high + low.
  alignas(64) c10::BFloat16 high[kTileRows][kPair] = {};
  alignas(64) c10::BFloat16 low[kTileRows][kPair] = {};
};

namespace {

// keys [head_dim, 16] in twos.
VS_TILES void PackKeys(const c10::BFloat16* keys, int64_t head_dim, c10::BFloat16* to) {
  for (int64_t i = 0; i < head_dim * kLanes; i += kHalves) {
    _mm512_storeu_si512(to + i, InTwos(_mm512_loadu_si512(keys + i)));
  }
}

struct Values {
  const c10::BFloat16* at;
  int64_t stride;
  int64_t first, end;  // those that some row sees; the others may be anything
};

VS_TILES VS_INLINED __m256i SeenRow(const Values& values, int64_t key, int64_t column) {
  if (key < values.first || key >= values.end) return _mm256_setzero_si256();
  return _mm256_loadu_si256(
      reinterpret_cast<const __m256i*>(values.at + key * values.stride + column));
}

// A block's values [16, head_dim] in twos. Returns whether all are finite.
VS_TILES bool PackValues(const Values& values, int64_t head_dim, c10::BFloat16* to) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 odd_ones = 0;
  for (int64_t column = 0; column < head_dim; column += kFloats) {
    for (int64_t key = 0; key < kLanes; key += 2) {
      const __m512i two = _mm512_inserti64x4(_mm512_castsi256_si512(SeenRow(values, key, column)),
                                             SeenRow(values, key + 1, column), 1);
      odd_ones |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(two, exponent), exponent);
      _mm512_storeu_si512(to + column * kPair + key * kFloats, InTwos(two));
    }
  }
  return odd_ones == 0;
}

// The scores of 16 rows in both blocks, not scaled.
VS_TILES void Scores(const c10::BFloat16* queries, const c10::BFloat16* keys, int64_t depth,
                     PairWeights* out) {
  VS_TILE_ZERO(kSums);
  VS_TILE_ZERO(kOtherSums);
  const c10::BFloat16* other_keys = keys + depth * kLanes;
  for (int64_t i = 0; i < depth; i += kHalves) {
    VS_TILE_LOAD(kLeft, queries + i, depth * int64_t{sizeof(c10::BFloat16)});
    VS_TILE_LOAD(kRight, keys + i * kLanes, kRowBytes);
    VS_TILE_LOAD(kOtherRight, other_keys + i * kLanes, kRowBytes);
    VS_TILE_MULTIPLY(kSums, kLeft, kRight);
    VS_TILE_MULTIPLY(kOtherSums, kLeft, kOtherRight);
  }
  VS_TILE_STORE(kSums, out->weights, sizeof(PairWeights));
  VS_TILE_STORE(kOtherSums, out->weights + kLanes, sizeof(PairWeights));
}

VS_TILES VS_INLINED __m512 Wide(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

VS_TILES VS_INLINED void Split(const PairWeights& weights, c10::BFloat16* high,
                               c10::BFloat16* low) {
  const __m512 first = _mm512_load_ps(weights.weights);
  const __m512 second = _mm512_load_ps(weights.weights + kLanes);
  const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
  _mm512_store_si512(high, rounded);
  const __m512 rest = _mm512_sub_ps(first, Wide(_mm512_castsi512_si256(rounded)));
  const __m512 other_rest = _mm512_sub_ps(second, Wide(_mm512_extracti64x4_epi64(rounded, 1)));
  _mm512_store_si512(low, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(other_rest, rest)));
}

VS_TILES VS_INLINED void Rescale(float* out, int64_t head_dim, float factor) {
  for (int64_t i = 0; i < head_dim; i += kFloats) LanesAt(out + i) *= factor;
}

// out [rows, head_dim] += weights times values
VS_TILES void AddValues(const c10::BFloat16* high, const c10::BFloat16* low,
                        const c10::BFloat16* values, int64_t head_dim, float* out) {
  const int64_t out_bytes = head_dim * int64_t{sizeof(float)};
  VS_TILE_LOAD(kLeft, high, kRowBytes);
  VS_TILE_LOAD(kRest, low, kRowBytes);
  for (int64_t column = 0; column < head_dim; column += kFloats) {
    VS_TILE_LOAD(kRight, values + column * kPair, kRowBytes);
    VS_TILE_LOAD(kSums, out + column, out_bytes);
    VS_TILE_MULTIPLY(kSums, kLeft, kRight);
    VS_TILE_MULTIPLY(kSums, kRest, kRight);
    VS_TILE_STORE(kSums, out + column, out_bytes);
  }
}

// Of up to 16 rows, from scores to weights in two parts.
VS_TILES void WeighRows(Row* rows, int64_t count, int64_t pair_begin, int64_t head_dim,
                        const Scoring& scoring, PairWeights* weights, c10::BFloat16 (*high)[kPair],
                        c10::BFloat16 (*low)[kPair]) {
  for (int64_t r = 0; r < count; ++r) {
    for (float& each : weights[r].weights) each *= scoring.scale;
    Weigh<Whole>(rows[r], pair_begin, scoring.soft_cap, weights[r]);
    if (weights[r].rescale != 1) Rescale(rows[r].out, head_dim, weights[r].rescale);
    Split(weights[r], high[r], low[r]);
  }
}

}  // namespace

TileAttention::TileAttention(std::unique_ptr<Packed> packed) : packed_(std::move(packed)) {}
TileAttention::TileAttention(TileAttention&&) noexcept = default;
TileAttention& TileAttention::operator=(TileAttention&&) noexcept = default;
TileAttention::~TileAttention() = default;

std::optional<TileAttention> TileAttention::Create(int64_t head_dim) {
  if (!HasTiles() || head_dim % kFloats != 0) return std::nullopt;
  return TileAttention(std::make_unique<Packed>(head_dim));
}

bool TileAttention::Attend(std::vector<Row>& rows, const CachedHead<c10::BFloat16>& head,
                           const Scoring& scoring) {
  Packed& packed = *packed_;
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t head_dim = head.head_dim, depth = packed.depth;
  const KeyRange seen = BeginRows(rows, head_dim);
  for (int64_t r = 0; r < count; ++r) {
    Narrow(rows[static_cast<size_t>(r)].query, head_dim, packed.queries.data() + r * depth);
  }
  ShapeRegisters(std::min(count, kTileRows));
  bool finite = true;
  for (int64_t begin = seen.first / kPair * kPair; finite && begin < seen.end; begin += kPair) {
    const std::array<int64_t, 2> places = PlacesOfPair(begin, seen);
    for (int64_t b = 0; b < 2; ++b) {
      const int64_t block_begin = begin + b * kLanes;
      PackKeys(head.KeysAt(places[static_cast<size_t>(b)]), head_dim,
               packed.keys.data() + b * depth * kLanes);
      const Values values{.at = head.ValuesAt(places[static_cast<size_t>(b)]),
                          .stride = head.value_stride,
                          .first = seen.first - block_begin,
                          .end = seen.end - block_begin};
      finite = PackValues(values, head_dim, packed.values.data() + b * kLanes * kFloats) && finite;
    }
    for (int64_t first = 0; finite && first < count; first += kTileRows) {
      Row* const some = rows.data() + first;
      Scores(packed.queries.data() + first * depth, packed.keys.data(), depth, packed.weights);
      WeighRows(some, std::min(kTileRows, count - first), begin, head_dim, scoring, packed.weights,
                packed.high, packed.low);
      AddValues(packed.high[0], packed.low[0], packed.values.data(), head_dim, some->out);
    }
  }
  ReleaseRegisters();
  if (finite) EndRows(rows, head_dim);
  return finite;
}

}  // namespace valuescope::model::cpu

#include "engine/restart.h"

#include <utility>
#include <variant>

#include "base/check.h"

namespace valuescope::engine {

std::vector<int64_t> Restart::AskedRows() const {
  std::vector<int64_t> rows = places.asked;
  for (int64_t& row : rows) row -= copies.begin;
  return rows;
}

Restart RestartOf(const NeuronRequest& request, const model::Architecture& architecture) {
  auto places = PlacesOf(request);
  VS_CHECK(places.ok());
  Restart restart{.places = *std::move(places)};
  std::vector<int64_t>& asked = restart.places.asked;
  const int64_t end = restart.places.read.back() + 1;
  std::erase_if(asked, [&](int64_t position) { return position >= end; });
  VS_CHECK(!asked.empty());
  restart.copies = {.begin = asked.front(),
                    .end = end,
                    .first_own_block = SequenceCopies{.end = end}.own_blocks()};
  for (const int64_t position : restart.places.read) {
    if (position >= restart.copies.begin) {
      restart.reread.push_back(position - restart.copies.begin);
    }
  }
  restart.last = ReadsLogits(request) ? architecture.num_layers - 1
                                      : std::get<ProjectionTarget>(request.target).layer;
  return restart;
}

}  // namespace valuescope::engine

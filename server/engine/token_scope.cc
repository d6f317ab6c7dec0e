#include "engine/token_scope.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::engine {
namespace {

absl::Status MeetsNothing(bool for_tap) {
  if (for_tap) {
    return InvalidField("kind", "selects no token of this request, so it would read nothing",
                        "TAP_READS_NOTHING");
  }
  return InvalidField("kind", "selects no token of this request, so it would touch nothing",
                      "INTERVENTION_TOUCHES_NOTHING");
}

}  // namespace

int64_t AbsolutePosition(int64_t given, const SequenceExtent& extent) {
  return given < 0 ? given + (extent.generates ? extent.prompt : extent.most) : given;
}

bool MayHoldGenerated(const TokenSelection& selection, int64_t prompt) {
  switch (selection.kind) {
    case TokenKind::kPrompt:
    case TokenKind::kLastPrompt:
      return false;
    case TokenKind::kPositions:
      return std::any_of(selection.positions.begin(), selection.positions.end(),
                         [prompt](int64_t position) { return position >= prompt; });
    case TokenKind::kAll:
    case TokenKind::kAllButFirst:
    case TokenKind::kResponse:
    case TokenKind::kLast:
    case TokenKind::kFromLastPrompt:
      return true;
  }
  return true;
}

absl::StatusOr<TokenScope> TokenScope::Resolve(const TokenSelection& selection,
                                               const SequenceExtent& extent, bool for_tap) {
  TokenScope scope;
  scope.most_ = extent.most;
  switch (selection.kind) {
    case TokenKind::kAll:
      break;
    case TokenKind::kAllButFirst:
      scope.first_ = 1;
      break;
    case TokenKind::kPrompt:
      scope.last_ = extent.prompt - 1;
      break;
    case TokenKind::kResponse:
      scope.first_ = extent.prompt;
      break;
    case TokenKind::kLastPrompt:
      scope.first_ = scope.last_ = extent.prompt - 1;
      break;
    case TokenKind::kFromLastPrompt:
      scope.first_ = extent.prompt - 1;
      break;
    case TokenKind::kLast:
      if (!extent.generates) {
        scope.first_ = scope.last_ = extent.most - 1;
      } else if (!for_tap) {
        return InvalidField(
            "kind",
            "LAST cannot steer a generation: which token is the last is not known before it ends");
      } else {
        scope.first_ = extent.prompt - 1;  // the last one where no token is returned
      }
      break;
    case TokenKind::kPositions:
      scope.explicit_ = true;
      break;
  }
  if (scope.explicit_) {
    const int64_t end = extent.generates ? extent.prompt : extent.most;
    if (selection.positions.empty())
      return InvalidField("positions", "must name at least one position");
    for (size_t i = 0; i < selection.positions.size(); ++i) {
      const int64_t given = selection.positions[i];
      const std::string field = absl::StrCat("positions[", i, "]");
      const int64_t position = AbsolutePosition(given, extent);
      if (position < 0 || position >= extent.most) {
        return OutOfRange(field, static_cast<double>(given), static_cast<double>(-end),
                          static_cast<double>(extent.most - 1));
      }
      if (!scope.positions_.insert(position).second)
        return InvalidField(field, "names a position twice");
    }
    scope.last_ = *scope.positions_.rbegin();
  }
  if (scope.MostTokens() <= 0) return MeetsNothing(for_tap);
  return scope;
}

bool TokenScope::Contains(int64_t position) const {
  if (explicit_) return positions_.contains(position);
  return position >= first_ && position <= last_;
}

int64_t TokenScope::MostTokens() const {
  if (explicit_) return static_cast<int64_t>(positions_.size());
  return std::min(last_, most_ - 1) - first_ + 1;
}

}  // namespace valuescope::engine

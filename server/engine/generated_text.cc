#include "engine/generated_text.h"

#include <algorithm>

namespace valuescope::engine {
namespace {

bool ContinuesACharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

}  // namespace

GeneratedText::GeneratedText(const text::Tokenizer& tokenizer, std::span<const std::string> stops)
    : stops_(stops), decoder_(tokenizer, /*skip_special_tokens=*/true) {
  if (!stops_.empty()) searched_decoder_.emplace(tokenizer, text::ForStopStrings{});
}

void GeneratedText::Track::Append(const std::string& more,
                                  const std::vector<text::Stretch>& added) {
  size_t begin = text.size();
  for (const text::Stretch& stretch : added) {
    begins.push_back(begin);
    stretches.push_back(stretch);
    begin += stretch.size;
  }
  text += more;
}

size_t GeneratedText::Track::StretchFrom(size_t place) const {
  return static_cast<size_t>(std::lower_bound(begins.begin(), begins.end(), place) -
                             begins.begin());
}

size_t GeneratedText::Track::BeginOfToken(size_t token) const {
  const auto found =
      std::partition_point(stretches.begin(), stretches.end(),
                           [token](const text::Stretch& one) { return one.first_token < token; });
  return found == stretches.end() ? text.size()
                                  : begins[static_cast<size_t>(found - stretches.begin())];
}

bool GeneratedText::Push(int32_t id) {
  ++pushed_;
  std::vector<text::Stretch> stretches;
  if (auto piece = decoder_.Push(id, stops_.empty() ? nullptr : &stretches); piece.ok()) {
    shown_.Append(*piece, stretches);
  }
  if (stops_.empty()) {
    settled_text_ = shown_.text.size();
    settled_tokens_ = pushed_;
    return false;
  }
  stretches.clear();
  if (auto piece = searched_decoder_->Push(id, &stretches); piece.ok()) {
    searched_.Append(*piece, stretches);
  }
  if (FindStop()) return true;
  searched_to_ = PlaceThatMayStop();
  Settle(searched_to_);
  return false;
}

bool GeneratedText::Finish() {
  Flush(decoder_, shown_);
  if (searched_decoder_) {
    Flush(*searched_decoder_, searched_);
    if (FindStop()) return true;
  }
  settled_text_ = shown_.text.size();
  settled_tokens_ = pushed_;
  return false;
}

void GeneratedText::Flush(text::StreamingDecoder& decoder, Track& track) {
  std::vector<text::Stretch> stretches;
  if (auto rest = decoder.Flush(&stretches); rest.ok()) track.Append(*rest, stretches);
}

bool GeneratedText::FindStop() {
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) {
    cut = std::min(cut, searched_.text.find(stop, searched_to_));
  }
  if (cut == std::string::npos) return false;
  // Bytes before the cut may still be held back, and bytes behind it: both texts end alike.
  Flush(decoder_, shown_);
  Flush(*searched_decoder_, searched_);
  Settle(cut);
  shown_.text.resize(settled_text_);
  return true;
}

// The first place at which a stop string may have begun that is not complete.
size_t GeneratedText::PlaceThatMayStop() const {
  const std::string& text = searched_.text;
  size_t place = text.size();
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, text.size() - searched_to_); size > 0; --size) {
      if (text.compare(text.size() - size, size, stop, 0, size) == 0) {
        place = std::min(place, text.size() - size);
        break;
      }
    }
  }
  return place;
}

void GeneratedText::Settle(size_t place) {
  settled_tokens_ = std::max(settled_tokens_, TokensBefore(place));
  settled_text_ = std::max(settled_text_, ShownBefore(place, settled_tokens_));
}

// Tokens up to the first one that has all its text at or behind a place of the searched text. Those
// without any text go with the one before, unless that is cut itself.
size_t GeneratedText::TokensBefore(size_t place) const {
  const size_t next = searched_.StretchFrom(place);
  size_t tokens = 0;
  if (next > 0) tokens = searched_.stretches[next - 1].last_token + 1;
  if (next < searched_.stretches.size() && searched_.begins[next] == place) {
    tokens = std::max(tokens, searched_.stretches[next].first_token);
  }
  return tokens;
}

// What the shown text has of a place of the searched text, before which `tokens` begin. The last of
// them loses as many bytes of its end as it does there: what differs is where a token begins.
size_t GeneratedText::ShownBefore(size_t place, size_t tokens) const {
  const size_t end = shown_.BeginOfToken(tokens);
  const size_t searched_end = searched_.BeginOfToken(tokens);
  if (tokens == 0 || searched_end <= place) return end;
  const auto own = std::partition_point(
      shown_.stretches.begin(), shown_.stretches.end(),
      [tokens](const text::Stretch& one) { return one.last_token + 1 < tokens; });
  if (own == shown_.stretches.end() || own->first_token >= tokens) return end;
  const size_t begin = shown_.begins[static_cast<size_t>(own - shown_.stretches.begin())];
  size_t cut = end - std::min(end - begin, searched_end - place);
  while (cut > begin && cut < shown_.text.size() && ContinuesACharacter(shown_.text[cut])) --cut;
  return cut;
}

}  // namespace valuescope::engine

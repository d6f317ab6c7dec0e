// Lists come in pages; people and programs want all of them.
#ifndef VALUESCOPE_COMMAND_LINE_PAGES_H_
#define VALUESCOPE_COMMAND_LINE_PAGES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "output.h"

namespace valuescope::command_line {

// Fetches every page of a list; `items` picks the repeated field of a response.
template <typename Item, typename Request, typename Fetch, typename Items>
absl::StatusOr<std::vector<Item>> AllPages(Request request, Fetch fetch, Items items) {
  std::vector<Item> all;
  for (;;) {
    const auto page = fetch(request);
    if (!page.ok()) return page.status();
    const auto& found = items(*page);
    all.insert(all.end(), found.begin(), found.end());
    if (page->next_page_token().empty()) return all;
    request.set_page_token(page->next_page_token());
  }
}

// Prints messages as JSON Lines.
template <typename Message>
int PrintJsonLines(const std::vector<Message>& messages) {
  for (const Message& message : messages) PrintJson(message);
  return kOk;
}

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_PAGES_H_

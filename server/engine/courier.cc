#include "engine/courier.h"

#include <utility>

namespace valuescope::engine {
namespace {

void Tell(News& news) {
  if (const auto* delta = std::get_if<Delta>(&news.what)) {
    news.observer->OnDelta(*delta);
  } else {
    news.observer->OnFinish(std::get<absl::StatusOr<Completion>>(std::move(news.what)));
  }
}

}  // namespace

void Courier::Deliver(std::vector<News> news) {
  if (news.empty()) return;
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Courier::IsEmpty));
  news_ = std::move(news);
}

void Courier::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Courier::Loop() {
  while (true) {
    std::vector<News> news;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Courier::HasNewsOrStops));
      if (news_.empty()) return;
      news.swap(news_);
    }
    for (News& each : news) {
      Tell(each);
      each.observer.reset();  // at once: what it holds is not kept for the others' sake
    }
  }
}

}  // namespace valuescope::engine

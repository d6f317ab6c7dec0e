// Who tells observers beside the engine's steps: in order, everything, and never far behind.
#include "engine/courier.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace valuescope::engine {
namespace {

// Notes what it is told, and may keep the courier waiting.
class Listener : public Observer {
 public:
  explicit Listener(absl::Notification* gate = nullptr) : gate_(gate) {}
  void OnDelta(const Delta& delta) override {
    if (gate_ != nullptr) gate_->WaitForNotification();
    text_ += delta.text;
  }
  void OnFinish(absl::StatusOr<Completion> completion) override {
    text_ += completion.ok() ? "." : "!";
  }
  // Once the courier stopped.
  const std::string& text() const { return text_; }

 private:
  absl::Notification* const gate_;
  std::string text_;
};

News Says(const std::shared_ptr<Observer>& observer, std::string text) {
  return {.observer = observer,
          .what = Delta{.text = std::move(text), .token_ids = {}, .logprobs = {}}};
}
News Ends(const std::shared_ptr<Observer>& observer, absl::StatusOr<Completion> how) {
  return {.observer = observer, .what = std::move(how)};
}

TEST(CourierTest, TellsEverythingInOrderBeforeItStops) {
  const auto one = std::make_shared<Listener>(), other = std::make_shared<Listener>();
  Courier courier;
  std::string expected;
  for (int i = 0; i < 500; ++i) {
    const std::string text(1, static_cast<char>('a' + i % 26));
    courier.Deliver({Says(one, text), Says(other, "-")});
    courier.Deliver({});
    expected += text;
  }
  courier.Deliver({Ends(one, Completion()), Ends(other, absl::CancelledError())});
  courier.Stop();
  courier.Stop();
  EXPECT_EQ(one->text(), expected + ".");
  EXPECT_EQ(other->text(), std::string(500, '-') + "!");
}

TEST(CourierTest, AnObserverIsLetGoOfWhenItWasTold) {
  absl::Notification gate, gone;
  struct Leaving : Listener {
    explicit Leaving(absl::Notification* gone) : gone(gone) {}
    ~Leaving() override { gone->Notify(); }
    absl::Notification* gone;
  };
  const auto slow = std::make_shared<Listener>(&gate);
  Courier courier;
  std::vector<News> news;
  news.push_back(Ends(std::make_shared<Leaving>(&gone), Completion()));
  news.push_back(Says(slow, "later"));
  courier.Deliver(std::move(news));
  gone.WaitForNotification();  // while the courier is still held up by the next one
  gate.Notify();
}

TEST(CourierTest, ADeliveryDoesNotWaitForTheTellingButTheOneAfterTheNextDoes) {
  absl::Notification gate;
  const auto slow = std::make_shared<Listener>(&gate);
  Courier courier;
  courier.Deliver({Says(slow, "1")});  // is being told
  courier.Deliver({Says(slow, "2")});  // waits
  absl::Notification third;
  std::thread engine([&] {
    courier.Deliver({Says(slow, "3")});
    third.Notify();
  });
  // Without a bound it would be there at once.
  EXPECT_FALSE(third.WaitForNotificationWithTimeout(absl::Milliseconds(50)));
  gate.Notify();
  engine.join();
  courier.Stop();
  EXPECT_EQ(slow->text(), "123");
}

}  // namespace
}  // namespace valuescope::engine

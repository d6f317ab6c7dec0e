// Tenants that share an engine: what each gets of the tokens that run, and how long one waits that
// asks now and then beside others that flood it. An engine is played by its steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace valuescope::engine {
namespace {

struct Asked {
  std::string tenant;
  int64_t known = 0;
  int64_t generates = 0;  // tokens, still
  int64_t asked_in = 0;   // the step
};

// How long an answer of a tenant is to become, for tokens of its prompt.
struct Kind {
  int64_t prompt = 16;
  int64_t answer = 64;
  int64_t most = 0;  // tokens that it might generate; 0: as long as it becomes
  bool background = false;
};

class Machine {
 public:
  explicit Machine(SchedulerOptions options, std::map<std::string, double> weights = {})
      : options_(options),
        weights_(std::move(weights)),
        scheduler_(options, [this](const std::string& tenant) {
          const auto found = weights_.find(tenant);
          return found == weights_.end() ? 1 : found->second;
        }) {}

  void SetWeight(const std::string& tenant, double weight) { weights_[tenant] = weight; }

  SequenceId Ask(const std::string& tenant, const Kind& kind, ClientId client = 0) {
    const SequenceId id = ++last_;
    const int64_t most = std::max(kind.most, kind.answer);
    scheduler_.Add({.id = id,
                    .known = kind.prompt,
                    .max_fed = kind.prompt + most - 1,
                    .background = kind.background,
                    .tenant = tenant,
                    .client = client == 0 ? static_cast<ClientId>(id) : client});
    asked_[id] = {tenant, kind.prompt, kind.answer, steps_};
    ++present_[tenant];
    return id;
  }

  // Asks until so many of the tenant wait or run.
  void Flood(const std::string& tenant, const Kind& kind, int64_t present) {
    while (present_[tenant] < present) Ask(tenant, kind);
  }

  std::vector<StepItem> Step() {
    ++steps_;
    const std::vector<StepItem> step = scheduler_.Plan();
    for (const StepItem& item : step) Ran(item);
    return step;
  }

  void LetGuestsGoFirst(bool first) { scheduler_.LetGuestsGoFirst(first); }

  // Steps that a sequence waited until its first token, the one that made it among them.
  int64_t StepsToFirst(SequenceId id) const { return first_.at(id); }
  bool HasFirst(SequenceId id) const { return first_.contains(id); }
  int64_t generated(const std::string& tenant) { return generated_[tenant]; }
  int64_t ran(const std::string& tenant) { return ran_[tenant]; }
  void ForgetCounts() {
    generated_.clear();
    ran_.clear();
  }
  int64_t steps() const { return steps_; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  void Ran(const StepItem& item) {
    Asked& asked = asked_.at(item.id);
    ran_[asked.tenant] += item.count;
    const int64_t fed = item.first + item.count;
    if (fed < asked.known) return scheduler_.Advance(item.id, fed, asked.known);
    ++generated_[asked.tenant];
    first_.try_emplace(item.id, steps_ - asked.asked_in);
    scheduler_.Advance(item.id, fed, ++asked.known);
    if (--asked.generates > 0) return;
    scheduler_.Remove(item.id);
    --present_[asked.tenant];
    asked_.erase(item.id);
  }

  const SchedulerOptions options_;
  std::map<std::string, double> weights_;
  Scheduler scheduler_;
  SequenceId last_ = 0;
  int64_t steps_ = 0;
  std::map<SequenceId, Asked> asked_;
  std::map<SequenceId, int64_t> first_;
  std::map<std::string, int64_t> present_, generated_, ran_;
};

SchedulerOptions SharedMachine() {
  return {.block_size = 16, .num_blocks = 4096, .max_batch_rows = 64, .max_step_tokens = 256};
}

// What "b" got for each of "a", in `steps` steps behind a while.
double SharesOf(Machine& machine, const Kind& a, const Kind& b, int64_t steps, bool generated) {
  const auto run = [&](int64_t some) {
    for (int64_t i = 0; i < some; ++i) {
      machine.Flood("a", a, 200);
      machine.Flood("b", b, 200);
      machine.Step();
    }
  };
  run(steps / 2);
  machine.ForgetCounts();
  run(steps);
  if (generated) {
    return static_cast<double>(machine.generated("b")) /
           static_cast<double>(machine.generated("a"));
  }
  return static_cast<double>(machine.ran("b")) / static_cast<double>(machine.ran("a"));
}

TEST(TenantTurns, FloodsGetGeneratedTokensByWeight) {
  for (const int64_t answer : {8, 64, 400}) {
    Machine machine(SharedMachine(), {{"b", 3}});
    const Kind kind{.answer = answer};
    EXPECT_NEAR(SharesOf(machine, kind, kind, 2000, /*generated=*/true), 3, 0.15) << answer;
  }
}

TEST(TenantTurns, FloodsThatBeginTogetherShareTheFirstRowsByWeight) {
  Machine machine(SharedMachine(), {{"b", 3}});
  machine.Flood("a", {}, 100);
  machine.Flood("b", {}, 100);
  for (int i = 0; i < 40; ++i) machine.Step();
  const double ratio =
      static_cast<double>(machine.ran("b")) / static_cast<double>(machine.ran("a"));
  EXPECT_NEAR(ratio, 3, 0.4);
}

TEST(TenantTurns, LongAnswersDoNotOwnTheRows) {
  Machine machine(SharedMachine());
  const Kind longs{.answer = 800}, shorts{.answer = 16};
  EXPECT_NEAR(SharesOf(machine, longs, shorts, 6000, /*generated=*/false), 1, 0.1);
}

TEST(TenantTurns, LongPromptsCountAsAnswersDo) {
  Machine machine(SharedMachine());
  const Kind reads{.prompt = 500, .answer = 8}, writes{.prompt = 16, .answer = 200};
  EXPECT_NEAR(SharesOf(machine, reads, writes, 6000, /*generated=*/false), 1, 0.1);
}

TEST(TenantTurns, WhoMightWriteMuchAndWritesLittleGetsItsShareToo) {
  Machine machine(SharedMachine());
  const Kind might{.answer = 20, .most = 900}, does{.answer = 20};
  EXPECT_NEAR(SharesOf(machine, might, does, 4000, /*generated=*/false), 1, 0.1);
}

TEST(TenantTurns, AWeightThatChangesCountsFromThenOn) {
  Machine machine(SharedMachine());
  EXPECT_NEAR(SharesOf(machine, {}, {}, 1000, true), 1, 0.1);
  machine.SetWeight("b", 3);
  EXPECT_NEAR(SharesOf(machine, {}, {}, 1000, true), 3, 0.3);
}

TEST(TenantTurns, WhoHadNothingToDoCollectsNoCredit) {
  Machine machine(SharedMachine());
  machine.Ask("b", {});
  for (int i = 0; i < 2000; ++i) {
    machine.Flood("a", {}, 200);
    machine.Step();
  }
  machine.ForgetCounts();
  for (int i = 0; i < 400; ++i) {
    machine.Flood("a", {}, 200);
    machine.Flood("b", {}, 200);
    machine.Step();
  }
  const auto a = static_cast<double>(machine.ran("a")), b = static_cast<double>(machine.ran("b"));
  EXPECT_NEAR(b / a, 1, 0.2);
}

// The third tenant's steps to its first token at the 95th percentile.
int64_t StepsOfAGuest(Machine& machine, const Kind& flood, int64_t waiting, const Kind& guest) {
  std::vector<int64_t> steps;
  SequenceId asked = 0;
  for (int i = 0; i < 6000; ++i) {
    if (waiting > 0) {
      machine.Flood("a", flood, 32 + waiting / 2);
      machine.Flood("b", flood, 32 + waiting / 2);
    }
    if (i >= 1000 && i % 40 == 0) asked = machine.Ask("guest", guest);
    machine.Step();
    if (asked != 0 && machine.HasFirst(asked)) {
      steps.push_back(machine.StepsToFirst(asked));
      asked = 0;
    }
  }
  std::sort(steps.begin(), steps.end());
  EXPECT_EQ(steps.size(), 125u);
  return steps[steps.size() * 95 / 100];
}

TEST(TenantTurns, WhoAsksNowAndThenWaitsForNobodysLongAnswers) {
  const Kind guest{.answer = 16};
  for (const Kind& flood : {Kind{.answer = 400}, Kind{.prompt = 300, .answer = 100}}) {
    for (const int64_t waiting : {0, 64, 1024}) {
      Machine machine(SharedMachine(), {{"b", 3}});
      EXPECT_LE(StepsOfAGuest(machine, flood, waiting, guest), 2) << waiting << " waiting";
    }
  }
}

TEST(TenantTurns, BlocksAreKeptForAGuestToo) {
  SchedulerOptions options = SharedMachine();
  options.num_blocks = 400;  // of which the floods' sequences take 26 each
  Machine machine(options);
  EXPECT_LE(StepsOfAGuest(machine, {.answer = 400}, 64, {.answer = 16}), 2);
}

TEST(TenantTurns, AGuestBesideJobsAndFloodsWaitsNoLonger) {
  Machine machine(SharedMachine());
  const Kind job{.prompt = 100, .answer = 200, .background = true};
  std::vector<int64_t> steps;
  SequenceId asked = 0;
  for (int i = 0; i < 6000; ++i) {
    machine.Flood("a", {.answer = 400}, 100);
    machine.Flood("b", {.answer = 400}, 100);
    machine.Flood("jobs", job, 100);
    if (i >= 1000 && i % 40 == 0) asked = machine.Ask("guest", {.answer = 16});
    machine.Step();
    if (asked != 0 && machine.HasFirst(asked)) {
      steps.push_back(machine.StepsToFirst(asked));
      asked = 0;
    }
  }
  std::sort(steps.begin(), steps.end());
  EXPECT_LE(steps[steps.size() * 95 / 100], 2);
}

// Tokens of the steps from the one in which a tenant with nothing running asks to that of its first
// token, and of the one after it; beside 62 answers of floods, who leave two rows.
std::vector<int64_t> StepsBesideAGuest(Machine& machine, const Kind& guest) {
  const auto step = [&machine] {
    for (const char* const tenant : {"a", "b"}) machine.Flood(tenant, {.answer = 400}, 100);
    return machine.Step();
  };
  for (int i = 0; i < 1000; ++i) step();
  const SequenceId asked = machine.Ask("guest", guest);
  std::vector<int64_t> tokens;
  for (bool had_first = false; !had_first;) {
    had_first = machine.HasFirst(asked);
    tokens.push_back(0);
    for (const StepItem& item : step()) tokens.back() += item.count;
  }
  return tokens;
}

TEST(TenantTurns, AGuestsPromptDoesNotShareALongStep) {
  Machine machine(SharedMachine());
  machine.LetGuestsGoFirst(true);
  EXPECT_EQ(StepsBesideAGuest(machine, {.prompt = 17, .answer = 2}),
            (std::vector<int64_t>{17, 62 + 1}));
}

TEST(TenantTurns, AGuestsPromptSharesAStepThatIsShort) {
  Machine machine(SharedMachine());
  EXPECT_EQ(StepsBesideAGuest(machine, {.prompt = 17, .answer = 2}),
            (std::vector<int64_t>{62 + 17, 62 + 1}));
}

TEST(TenantTurns, AGuestsPromptGoesAheadOfAnswersInOneStepAtMost) {
  Machine machine(SharedMachine());
  machine.LetGuestsGoFirst(true);
  EXPECT_EQ(StepsBesideAGuest(machine, {.prompt = 100, .answer = 2}),
            (std::vector<int64_t>{64, 62 + 36, 62 + 1}));
}

TEST(TenantTurns, AnswersLoseOneStepInFiveToGuestsAtMost) {
  Machine machine(SharedMachine());
  machine.LetGuestsGoFirst(true);
  int with_answers = 0;
  for (int i = 0; i < 600; ++i) {
    machine.Flood("a", {.answer = 400}, 100);
    machine.Ask("guest" + std::to_string(i), {.answer = 1});
    const size_t rows = machine.Step().size();
    if (i >= 100 && rows > 32) ++with_answers;
  }
  EXPECT_EQ(with_answers, 400);
}

TEST(TenantTurns, AGuestThatAsksForMoreThanItsShareWaitsForItsTurn) {
  Machine machine(SharedMachine(), {{"b", 3}});
  for (int i = 0; i < 3000; ++i) {
    machine.Flood("a", {.answer = 100}, 100);
    machine.Flood("b", {.answer = 100}, 100);
    machine.Flood("guest", {.answer = 100}, 100);
    machine.Step();
    if (i == 1000) machine.ForgetCounts();
  }
  const auto a = static_cast<double>(machine.ran("a")),
             guest = static_cast<double>(machine.ran("guest"));
  EXPECT_NEAR(guest / a, 1, 0.1);
}

TEST(TenantTurns, ATenantHasNoMoreOfTheCacheThanItsShareAndOneRequestAlways) {
  std::map<std::string, double> shares = {{"small", 0.25}, {"large", 1}};
  Scheduler scheduler({.num_blocks = 64, .max_batch_rows = 64}, /*weight_of=*/{},
                      [&](const std::string& tenant) { return shares.at(tenant); });
  SequenceId last = 0;
  const auto add = [&](const std::string& tenant, int64_t blocks) {
    const int64_t tokens = blocks * kBlockSize;
    const SequenceId id = ++last;
    scheduler.Add({.id = id,
                   .known = 1,
                   .max_fed = tokens,
                   .tenant = tenant,
                   .client = static_cast<ClientId>(id)});
    return id;
  };
  const auto running = [&](const std::vector<SequenceId>& ids) {
    return std::count_if(ids.begin(), ids.end(),
                         [&](SequenceId id) { return scheduler.IsRunning(id); });
  };
  std::vector<SequenceId> small, large;
  for (int i = 0; i < 10; ++i) small.push_back(add("small", 4));
  for (int i = 0; i < 4; ++i) large.push_back(add("large", 8));
  scheduler.Plan();
  EXPECT_EQ(running(small), 4) << "a quarter of 64 blocks is 16";
  EXPECT_EQ(running(large), 4) << "who waits for its own share is passed";
  scheduler.Remove(small[0]);
  scheduler.Plan();
  EXPECT_EQ(running(small), 4) << "another one";
  shares["small"] = 0.375;
  scheduler.Plan();
  EXPECT_EQ(running(small), 6) << "it was raised";
  for (const SequenceId id : small) scheduler.Remove(id);
  const SequenceId whole = add("small", 30);
  scheduler.Plan();
  EXPECT_TRUE(scheduler.IsRunning(whole)) << "where nothing else of the tenant runs";
}

TEST(TenantTurns, ATenantAloneHasAllRowsAndTwoLeaveSome) {
  Machine machine(SharedMachine());
  for (int i = 0; i < 50; ++i) {
    machine.Flood("a", {.answer = 400}, 100);
    machine.Step();
  }
  EXPECT_EQ(machine.scheduler().num_running(), 64);
  for (int i = 0; i < 600; ++i) {
    machine.Flood("a", {.answer = 400}, 100);
    machine.Flood("b", {.answer = 400}, 100);
    machine.Step();
  }
  EXPECT_EQ(machine.scheduler().num_running(), 62);
}

TEST(TenantTurns, AJobThatNeedsNearlyAllBlocksGetsItsTurnBesideSeveralTenants) {
  SchedulerOptions options = SharedMachine();
  options.num_blocks = 64;
  Machine machine(options);
  const Kind person{.prompt = 16, .answer = 32};
  const SequenceId job = machine.Ask("jobs", {.prompt = 900, .answer = 100, .background = true});
  for (int i = 0; i < 5000 && !machine.HasFirst(job); ++i) {
    machine.Flood("a", person, 50);
    machine.Flood("b", person, 50);
    if (i % 10 == 0) machine.Ask("guest", person);
    machine.Step();
  }
  EXPECT_TRUE(machine.HasFirst(job));
}

TEST(TenantTurns, AJobsTurnIsNotPassedForEverWhereRowsAreFew) {
  SchedulerOptions options = SharedMachine();
  options.max_batch_rows = 4;
  Machine machine(options);
  const Kind person{.prompt = 16, .answer = 32};
  const SequenceId job = machine.Ask("jobs", {.prompt = 64, .answer = 10, .background = true});
  for (int i = 0; i < 5000 && !machine.HasFirst(job); ++i) {
    for (const char* tenant : {"a", "b", "c", "d"}) machine.Flood(tenant, person, 20);
    machine.Step();
  }
  EXPECT_TRUE(machine.HasFirst(job));
}

}  // namespace
}  // namespace valuescope::engine

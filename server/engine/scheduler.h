// Which tokens run in the next step. Pure policy: it knows token counts and cache blocks, no
// tensors and no clock.
//
// A sequence has some tokens known (prompt, given response, what was sampled so far) of which some
// were fed. Each step feeds every running sequence that lags by one token (decoding), then fills
// the token budget with chunks of prompts. A sequence is admitted only when blocks for all it may
// ever feed are free, so nothing that runs can run out.
//
// Clients take turns, both in being admitted and in their share of the budget for prompts: one that
// sends a thousand sequences delays another's first by a turn, not by a thousand. People come
// before the background, which keeps a quarter of what both ask for.
#ifndef VALUESCOPE_ENGINE_SCHEDULER_H_
#define VALUESCOPE_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

namespace valuescope::engine {

using SequenceId = int64_t;
// Sequences of one client share its turn: those of one call, or of one shard of a job.
using ClientId = uint64_t;

struct SchedulerOptions {
  int64_t block_size = 16;  // tokens a cache block
  int64_t num_blocks = 0;
  int64_t max_batch_rows = 64;    // sequences running at once
  int64_t max_step_tokens = 512;  // tokens of one step
};

// Tokens first .. first + count - 1 of a sequence run in this step.
struct StepItem {
  SequenceId id = 0;
  int64_t first = 0;
  int64_t count = 0;

  friend bool operator==(const StepItem&, const StepItem&) = default;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);

  // Whether a sequence that feeds up to `max_fed` tokens could run on an empty machine.
  bool CanEverFit(int64_t max_fed) const;

  // Queues a sequence with `known` tokens that may feed up to `max_fed` in all. Foreground
  // sequences are admitted before background ones, except that every fourth admission goes to the
  // background while it waits. Within each, clients take turns; a client's own are in order.
  void Add(SequenceId id, int64_t known, int64_t max_fed, bool background, ClientId client = 0);

  // Admits what fits, then chooses the next step; empty when nothing can run.
  std::vector<StepItem> Plan();

  // `fed` tokens of a running sequence are in the cache and `known` tokens are known. fed <
  // previous starts over.
  void Advance(SequenceId id, int64_t fed, int64_t known);

  // Forgets a sequence, running or waiting, and frees its blocks.
  void Remove(SequenceId id);

  // Cache blocks of a running sequence, in order.
  const std::vector<int64_t>& Blocks(SequenceId id) const { return running_.at(id).blocks; }

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return foreground_.size() + background_.size(); }
  double used_ratio() const;

 private:
  struct Waiting {
    SequenceId id = 0;
    int64_t known = 0;
    int64_t max_fed = 0;
  };
  // Waiting sequences, client by client in turn.
  class Queue {
   public:
    void Add(ClientId client, Waiting waiting);
    const Waiting& front() const { return clients_.front().second.front(); }
    ClientId front_client() const { return clients_.front().first; }
    void PopFront();  // and the client goes to the end
    void Remove(SequenceId id);
    bool empty() const { return clients_.empty(); }
    int64_t size() const;

   private:
    std::deque<std::pair<ClientId, std::deque<Waiting>>> clients_;  // none is empty
  };
  struct Running {
    int64_t fed = 0;
    int64_t known = 0;
    bool background = false;
    ClientId client = 0;
    std::vector<int64_t> blocks;
    int64_t planned = 0;  // tokens of the step being planned
  };

  int64_t BlocksFor(int64_t tokens) const;
  void Admit();
  Queue* NextQueue();
  int64_t PlanDecoding();
  void PlanPrompts(int64_t budget);
  int64_t ShareAmongClients(bool background, int64_t budget);

  SchedulerOptions options_;
  std::vector<int64_t> free_blocks_;
  Queue foreground_;
  Queue background_;
  std::map<SequenceId, Running> running_;  // by id: older sequences first
  int foreground_turns_ = 0;
  ClientId last_served_[2] = {0, 0};  // foreground, background: who had the first share of prompts
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SCHEDULER_H_

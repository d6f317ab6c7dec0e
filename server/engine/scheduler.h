// Which tokens run in the next step, and in which cache blocks. Pure policy: it knows token counts,
// blocks and keys, no tensors and no clock.
//
// A sequence has some tokens known (prompt, given response, what was sampled so far) of which some
// were fed. Each step feeds every running sequence that lags by one token (decoding), then fills
// the token budget with chunks of prompts.
//
// Admission: a sequence runs only once blocks for all that it may ever feed are promised to it,
// whatever part of them it takes in the end. A promise costs admissions, but nothing that runs can
// run out: no person's request is ever thrown back by another's, the worst case is known before
// the first token is sent, and only the background, which was told so, is preempted.
//
// What else a sequence takes to run, such as rows of tables, it reserves when it is admitted. One
// that finds none is set aside, and those that need none pass it; those that do come behind it, in
// their order. So nothing that runs finds a table full, and nobody waits for what he does not need.
// What is reserved may take a while to get ready, and until then the sequence is in no step.
//
// Sharing: a full block whose content has a key (prefix_keys.h) is published and held by every
// sequence that begins with this content. A sequence takes what is there before it computes, block
// by block, and waits while another one is computing just the block that it needs next. Tokens that
// somebody must see run (`run_from`, and the last known token) are run in blocks of its own.
//
// Turns: tenants share by weight what runs (tenant_shares.h), and clients of a tenant take turns,
// both in being admitted and in the budget for prompts: one that sends a thousand sequences delays
// another's first by a turn, not by a thousand. People come before the background, which keeps a
// quarter of what both ask for. What they leave of a step is the background's. While people's
// tokens run no more of the background's prompts runs beside them than is said (BoundPrompts), and
// beside their answers no more of anybody's: a reader waits for every step's end, and who asks in
// the middle of one waits for that, and then for the end of his own. Where steps of answers are
// long, a tenant that had nothing running has that one to itself (LetGuestsGoFirst): its prompt
// alone takes a fraction of it, and answers wait so long now and then.
//
// Room that is kept: nothing that runs is thrown back for a person, so a tenant that came while
// others' long answers have all rows would wait for one of them to end. While people of several
// tenants are there, or were lately (TenantShares::kRemembered), one row in 32 and one block in 16
// are therefore for who has nothing running, and had no more than its share: it passes those who
// may not take them. A tenant alone has all.
//
// Preemption: where a person's sequence finds no row or too few blocks, background sequences give
// up theirs, youngest first, and go back to the head of their tenant's line; what they had computed
// stays cached as long as nobody needs the room. None is sent back that came in by the background's
// own turn, nor more than kMostPreemptions times, so each of them ends.
#ifndef VALUESCOPE_ENGINE_SCHEDULER_H_
#define VALUESCOPE_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <unordered_set>
#include <vector>

#include "engine/arrival.h"
#include "engine/block_pool.h"
#include "engine/prefix_keys.h"
#include "engine/tenant_shares.h"
#include "engine/waiting_line.h"

namespace valuescope::engine {

// Tokens of a cache block, in every engine.
inline constexpr int64_t kBlockSize = 16;

struct SchedulerOptions {
  int64_t block_size = kBlockSize;
  int64_t num_blocks = 0;
  int64_t max_batch_rows = 64;    // sequences running at once
  int64_t max_step_tokens = 512;  // tokens of one step

  int64_t BlocksFor(int64_t tokens) const { return (tokens + block_size - 1) / block_size; }
  // Whether a sequence that feeds up to `max_fed` tokens could run on an empty machine.
  bool CanEverFit(int64_t max_fed) const { return BlocksFor(max_fed) <= num_blocks; }
};

// Tokens first .. first + count - 1 of a sequence run in this step. Those before `first` are in the
// cache, computed by this sequence or by another.
struct StepItem {
  SequenceId id = 0;
  int64_t first = 0;
  int64_t count = 0;

  friend bool operator==(const StepItem&, const StepItem&) = default;
};

class Scheduler {
 public:
  // A background sequence is sent back this often at most.
  static constexpr int kMostPreemptions = 3;

  // `weight_of` says what each tenant's part weighs, `cache_share_of` what of the blocks it may
  // have (CacheBounds).
  explicit Scheduler(SchedulerOptions options, const WeightOf& weight_of = {},
                     const std::function<double(const std::string&)>& cache_share_of = {});

  // Queues a sequence, which can ever fit. Foreground sequences are admitted before background
  // ones, except that every fourth admission goes to the background while it waits. Within each,
  // tenants come by their shares and clients of a tenant in turn; a client's own are in order.
  void Add(Arrival arrival);

  // What sequences need besides blocks, as far as they say that they reserve it.
  class Reservations {
   public:
    virtual ~Reservations() = default;
    // Takes it, or takes nothing and says false. Must say true of any when none is running.
    virtual bool Reserve(SequenceId) { return true; }
    // Whether a sequence for which it was taken may run. Says true in the end, and then is not
    // asked again.
    virtual bool Ready(SequenceId) { return true; }
  };

  // At most so many tokens of the background's prompts run in a step in which people's tokens run,
  // and of all prompts in one in which people's answers go on; there as many at least as the step
  // has of answers. Less than 64 of them is taken for that, or than a quarter of a step where that
  // is less; so it is by default.
  void BoundPrompts(int64_t tokens);
  // Whether steps of answers are so long that the prompt of a guest, who has nothing else running,
  // does not share one: then every few steps one may have no answers. Default false.
  void LetGuestsGoFirst(bool first) { guests_go_first_ = first; }

  // Admits what fits, then chooses the next step; empty when nothing can run yet.
  std::vector<StepItem> Plan(Reservations& reservations);
  // Where nothing needs to be reserved.
  std::vector<StepItem> Plan();
  // Sequences that the last Plan sent back: what they fed is forgotten and begins at 0 again, what
  // is known of them stays known.
  const std::vector<SequenceId>& preempted() const { return preempted_; }

  // `fed` tokens of a running sequence are in the cache and `known` tokens are known; `keys` are
  // those of full blocks that became known since.
  void Advance(SequenceId id, int64_t fed, int64_t known, const std::vector<BlockKey>& keys = {});

  // A running sequence that may start over runs again what must be seen, `known` tokens long.
  // Returns how many tokens before it stay in the cache.
  int64_t StartOver(SequenceId id, int64_t known);

  // Forgets a sequence, running or waiting, and lets go of its blocks.
  void Remove(SequenceId id);

  bool IsRunning(SequenceId id) const { return running_.contains(id); }
  // Cache blocks of a running sequence that it needed so far, in order.
  const std::vector<int64_t>& Blocks(SequenceId id) const { return running_.at(id).blocks; }
  const BlockPool& pool() const { return pool_; }

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return foreground_.size() + background_.size(); }
  // Parts of all blocks: held by running sequences; held by or promised to them; kept for reuse.
  double used_ratio() const { return RatioOf(pool_.held()); }
  double promised_ratio() const { return RatioOf(pool_.held() + promised_); }
  double cached_ratio() const { return RatioOf(pool_.cached()); }
  // Since the start: tokens that sequences found in the cache, and sequences that were sent back.
  int64_t prefix_hit_tokens() const { return prefix_hit_tokens_; }
  int64_t steered_prefix_hit_tokens() const { return steered_prefix_hit_tokens_; }
  int64_t preemptions() const { return preemptions_; }
  // How often one of them began to run, those again that were sent back.
  int64_t admissions() const { return admissions_; }

 private:
  struct Admitted {
    Waiting what;
    bool keeps_place = false;  // is not preempted
    bool ready = false;        // may be in a step
    bool guest = false;        // may go ahead of answers: a person's, whose tenant ran nothing else
    int64_t fed = 0;
    int64_t planned = 0;          // tokens of the step being planned
    std::vector<int64_t> blocks;  // first those of others, then its own

    bool background() const { return what.arrival.background; }
    // Tokens that it may run and did not.
    int64_t lag() const { return ready ? what.arrival.known - fed : 0; }
    // The most that it may still run.
    int64_t under_way() const { return what.arrival.max_fed - fed; }
  };
  // Clients of one tenant whose prompts share a step.
  struct Prompts;
  enum class Whose { kPeoples, kGuests, kBackground };
  // What preempting some sequences would give back.
  struct Release {
    std::vector<SequenceId> victims;
    int64_t blocks = 0;
    std::map<int64_t, int64_t> holders;  // block -> how many of its holders are victims
  };

  int64_t BlocksFor(int64_t tokens) const { return options_.BlocksFor(tokens); }
  double RatioOf(int64_t blocks) const;
  int64_t MostShared(const Arrival& arrival) const;
  int64_t PromisedTo(const Admitted& sequence) const;
  int64_t Unpromised() const { return pool_.available() - promised_; }

  WaitingLine& LineOf(bool background) { return background ? background_ : foreground_; }
  void BeginShares();
  void Admit(Reservations& reservations);
  WaitingLine* NextLine();
  bool AdmitHead(WaitingLine& line, Reservations& reservations);
  bool KeepsPlace(const Waiting& head) const;
  bool KeepsRoom() const;
  bool LeavesRoom(const Waiting& head) const;
  bool AdmitGuest(const Waiting& passed, Reservations& reservations);
  bool MakeRoom();
  int64_t BlocksNeeded(const Arrival& arrival, const Release& release) const;
  bool HasRoom(const Arrival& arrival, const Release& release) const;
  void AddVictim(const Admitted& sequence, Release& release) const;
  void Preempt(SequenceId id);
  void LetGo(Admitted& sequence);

  void TakeShared(Admitted& sequence);
  void TakeOwn(Admitted& sequence);
  bool PlanGuests();
  int64_t PlanDecoding();
  void PlanPrompts(int64_t budget);
  int64_t MostPrompts() const;
  std::vector<Prompts> LaggingPrompts(Whose whose);
  int64_t ShareAmongTenants(Whose whose, int64_t budget);
  int64_t ShareAmongClients(Prompts& prompts, int64_t budget);
  bool ClaimNextBlock(const Admitted& sequence);
  bool BeginsShared(const Admitted& sequence) const;

  SchedulerOptions options_;
  BlockPool pool_;
  int64_t promised_ = 0;  // blocks that running sequences may still take
  WaitingLine foreground_;
  WaitingLine background_;
  std::map<SequenceId, Admitted> running_;  // by id: older sequences first
  int foreground_turns_ = 0;
  bool guests_go_first_ = false;
  int64_t steps_since_guests_ = 0;         // since one without the answers of others
  int64_t most_beside_people_ = 0;         // tokens of prompts
  std::unordered_set<BlockKey> computed_;  // blocks that the step being planned works on
  std::vector<SequenceId> preempted_;
  int64_t prefix_hit_tokens_ = 0;
  int64_t steered_prefix_hit_tokens_ = 0;  // of them, by what is steered, which reserves
  int64_t preemptions_ = 0;
  int64_t admissions_ = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SCHEDULER_H_

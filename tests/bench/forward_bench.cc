// The forward pass alone, timed piece by piece as tests/bench/model asks: no engine, no gRPC. It
// reads one command a line from standard input and answers with one line of JSON, so that its
// measurements can alternate with those of other processes that hold the same model.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <chrono>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/check.h"
#include "model/site.h"
#include "model/transformer.h"

namespace valuescope::model {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr char kUsage[] =
    "usage: forward_bench MODEL_FOLDER THREADS [DTYPE]   float32 (default), bfloat16 or float16\n"
    "commands on standard input, one a line; each answers with one line of JSON:\n"
    "  forward SEQUENCES LENGTH             whole sequences, logits of each one's last token\n"
    "  means SEQUENCES LENGTH PROMPT        the same, summing RESIDUAL_POST and MLP_NEURONS of\n"
    "                                       every layer over the tokens behind PROMPT\n"
    "  residuals SEQUENCES LENGTH           the same, copying RESIDUAL_POST of every layer\n"
    "  decode ROWS CONTEXT STEPS            greedy steps of ROWS sequences behind CONTEXT tokens\n"
    "  generate ROWS PROMPT STEPS           ROWS prompts of PROMPT tokens, then STEPS greedy "
    "tokens\n"
    "                                       of each, the first from the prompt\n"
    "  operators CALLS COMMAND ARGUMENT...  milliseconds a call that COMMAND spends in each\n"
    "                                       operator, without those that it calls\n";

constexpr int64_t kBlockSize = 16;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Sequences of equal length over a cache of their own; tokens are drawn once and do not matter to
// the time.
class Sequences {
 public:
  Sequences(const Transformer& model, int64_t count, int64_t capacity)
      : model_(model), count_(count), blocks_each_((capacity + kBlockSize - 1) / kBlockSize) {
    auto cache = KvCache::Allocate(model.architecture(), count * blocks_each_, kBlockSize,
                                   model.dtype(), c10::kCPU);
    VS_CHECK(cache.ok());
    cache_ = *std::move(cache);
    tables_ = at::arange(count * blocks_each_, at::kLong).view({count, blocks_each_});
    program_.resize(NumWires(model.architecture()));
  }

  StepProgram& program() { return program_; }

  // Feeds tokens [count, length] at positions first .. first + length - 1 of every sequence.
  // Returns the logits of each sequence's last one: [count, vocabulary].
  at::Tensor Feed(const at::Tensor& tokens, int64_t first) {
    const int64_t length = tokens.size(1);
    const at::Tensor positions = at::arange(first, first + length, at::kLong).repeat({count_});
    const at::Tensor sequences = at::arange(count_, at::kLong).repeat_interleave(length);
    return model_.Forward(
        {.token_ids = tokens.reshape({-1}),
         .positions = positions,
         .sequences = sequences,
         .cache_slots = sequences * (blocks_each_ * kBlockSize) + positions,
         .block_tables = tables_,
         .table_rows = at::zeros({count_ * length}, at::kLong),
         .logit_tokens = at::arange(length - 1, count_ * length, length, at::kLong)},
        cache_, program_);
  }

 private:
  const Transformer& model_;
  const int64_t count_, blocks_each_;
  KvCache cache_;
  at::Tensor tables_;
  StepProgram program_;
};

at::Tensor RandomTokens(const Transformer& model, int64_t count, int64_t length) {
  return at::randint(model.architecture().vocabulary, {count, length}, at::kLong);
}

void AddTap(const Wire& wire, TapStage tap, const Transformer& model, StepProgram& program) {
  program[WireIndex(wire, model.architecture())].taps.push_back(std::move(tap));
}

// Seconds of one command.
double RunForward(const Transformer& model, std::istream& arguments) {
  int64_t count = 0, length = 0;
  arguments >> count >> length;
  VS_CHECK(count > 0 && length > 0);
  Sequences sequences(model, count, length);
  const at::Tensor tokens = RandomTokens(model, count, length);
  const auto start = Clock::now();
  sequences.Feed(tokens, 0);
  return SecondsSince(start);
}

double RunMeans(const Transformer& model, std::istream& arguments) {
  int64_t count = 0, length = 0, prompt = 0;
  arguments >> count >> length >> prompt;
  VS_CHECK(count > 0 && prompt >= 0 && length > prompt);
  Sequences sequences(model, count, length);
  const at::Tensor tokens = RandomTokens(model, count, length);
  const auto start = Clock::now();
  for (int64_t s = 0; s < count; ++s) {
    const at::Tensor responses = at::arange(s * length + prompt, (s + 1) * length, at::kLong);
    const at::Tensor rows = at::zeros_like(responses);
    for (int layer = 0; layer < model.architecture().num_layers; ++layer) {
      for (const Site site : {Site::kResidualPost, Site::kMlpNeurons}) {
        AddTap({site, layer},
               {.operation = TapOperation::kSum,
                .tokens = responses,
                .rows = rows,
                .destination = at::zeros({1, WidthOf(site, model.architecture())}, at::kDouble)},
               model, sequences.program());
      }
    }
  }
  sequences.Feed(tokens, 0);
  return SecondsSince(start);
}

double RunResiduals(const Transformer& model, std::istream& arguments) {
  int64_t count = 0, length = 0;
  arguments >> count >> length;
  VS_CHECK(count > 0 && length > 0);
  Sequences sequences(model, count, length);
  const at::Tensor tokens = RandomTokens(model, count, length);
  const auto start = Clock::now();
  const at::Tensor all = at::arange(count * length, at::kLong);
  for (int layer = 0; layer < model.architecture().num_layers; ++layer) {
    AddTap({Site::kResidualPost, layer},
           {.operation = TapOperation::kCopy,
            .tokens = all,
            .rows = all,
            .destination = at::zeros({count * length, model.architecture().hidden}, at::kFloat)},
           model, sequences.program());
  }
  sequences.Feed(tokens, 0);
  return SecondsSince(start);
}

double RunDecode(const Transformer& model, std::istream& arguments) {
  int64_t rows = 0, context = 0, steps = 0;
  arguments >> rows >> context >> steps;
  VS_CHECK(rows > 0 && context > 0 && steps > 0);
  Sequences sequences(model, rows, context + steps);
  at::Tensor next = sequences.Feed(RandomTokens(model, rows, context), 0).argmax(1, true);
  const auto start = Clock::now();
  for (int64_t step = 0; step < steps; ++step) {
    next = sequences.Feed(next, context + step).argmax(1, true);
  }
  return SecondsSince(start);
}

double RunGenerate(const Transformer& model, std::istream& arguments) {
  int64_t rows = 0, prompt = 0, steps = 0;
  arguments >> rows >> prompt >> steps;
  VS_CHECK(rows > 0 && prompt > 0 && steps > 0);
  Sequences sequences(model, rows, prompt + steps);
  const at::Tensor tokens = RandomTokens(model, rows, prompt);
  const auto start = Clock::now();
  at::Tensor next = sequences.Feed(tokens, 0).argmax(1, true);
  for (int64_t step = 1; step < steps; ++step) {
    next = sequences.Feed(next, prompt + step - 1).argmax(1, true);
  }
  return SecondsSince(start);
}

double Run(const Transformer& model, const std::string& command, std::istream& arguments) {
  if (command == "forward") return RunForward(model, arguments);
  if (command == "means") return RunMeans(model, arguments);
  if (command == "residuals") return RunResiduals(model, arguments);
  if (command == "decode") return RunDecode(model, arguments);
  if (command == "generate") return RunGenerate(model, arguments);
  std::cerr << "unknown command: " << command << "\n" << kUsage;
  std::exit(2);
}

// Time of each operator on this thread, which is the one that waits for the others.
struct OperatorTimes {
  struct Frame {
    Clock::time_point start;
    double in_others = 0;  // seconds in the operators that this one called
  };
  std::vector<Frame> open;
  std::map<std::string, double> seconds;
};
thread_local OperatorTimes operator_times;

std::unique_ptr<at::ObserverContext> Enter(const at::RecordFunction& function) {
  operator_times.open.push_back({.start = Clock::now()});
  return nullptr;
}

void Leave(const at::RecordFunction& function, at::ObserverContext* context) {
  const OperatorTimes::Frame frame = operator_times.open.back();
  operator_times.open.pop_back();
  const double seconds = SecondsSince(frame.start);
  operator_times.seconds[function.name()] += seconds - frame.in_others;
  if (!operator_times.open.empty()) operator_times.open.back().in_others += seconds;
}

json RunOperators(const Transformer& model, std::istream& arguments) {
  int calls = 0;
  std::string command, rest;
  arguments >> calls >> command;
  std::getline(arguments, rest);
  VS_CHECK(calls > 0);
  operator_times = {};
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(Enter, Leave).scopes({at::RecordScope::FUNCTION}));
  for (int i = 0; i < calls; ++i) {
    std::istringstream one(rest);
    Run(model, command, one);
  }
  at::removeCallback(handle);
  json milliseconds = json::object();
  for (const auto& [name, seconds] : operator_times.seconds) {
    milliseconds[name] = 1e3 * seconds / calls;
  }
  return milliseconds;
}

std::optional<DType> ReadDType(const std::string& name) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (name == NameOf(dtype)) return dtype;
  }
  return std::nullopt;
}

int Main(int argc, char** argv) {
  int threads = 0;
  const std::optional<DType> dtype = ReadDType(argc == 4 ? argv[3] : "float32");
  if (argc < 3 || argc > 4 || !absl::SimpleAtoi(argv[2], &threads) || threads < 1 || !dtype) {
    std::cerr << kUsage;
    return 2;
  }
  at::set_num_threads(threads);
  const auto start = Clock::now();
  auto model = Transformer::Load(argv[1], {.dtype = *dtype});
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  std::cout << json{{"load_seconds", SecondsSince(start)}} << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream arguments(line);
    std::string command;
    arguments >> command;
    if (command == "operators") {
      std::cout << json{{"milliseconds", RunOperators(**model, arguments)}} << std::endl;
    } else {
      std::cout << json{{"seconds", Run(**model, command, arguments)}} << std::endl;
    }
  }
  return 0;
}

}  // namespace
}  // namespace valuescope::model

int main(int argc, char** argv) { return valuescope::model::Main(argc, argv); }

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

absl::StatusOr<v1::StreamGenerateRequest> MakeGenerateRequest(const GenerateFlags& flags) {
  v1::StreamGenerateRequest request;
  request.set_model(ResourceName("models", flags.prompt.model));
  absl::StatusOr<v1::Prompt> prompt = MakePrompt(flags.prompt);
  if (!prompt.ok()) return prompt.status();
  *request.mutable_prompt() = *std::move(prompt);
  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_max_tokens(flags.max_tokens);
  sampling.set_temperature(flags.temperature);
  sampling.set_top_p(flags.top_p);
  sampling.set_top_k(flags.top_k);
  sampling.set_min_p(flags.min_p);
  sampling.set_repetition_penalty(flags.repetition_penalty);
  if (flags.seed) sampling.set_seed(*flags.seed);
  for (const std::string& stop : flags.stop) sampling.add_stop(stop);
  for (const int id : flags.stop_token_ids) sampling.add_stop_token_ids(id);
  sampling.set_ignore_eos(flags.ignore_eos);
  request.set_n(flags.n);
  if (flags.logprobs) request.set_logprobs(*flags.logprobs);
  return request;
}

// The flat stream request and the unary one have the same fields under the same numbers.
v1::GenerateRequest AsUnary(const v1::StreamGenerateRequest& request) {
  v1::GenerateRequest unary;
  unary.ParseFromString(request.SerializeAsString());
  return unary;
}

void PrintReceipts(const google::protobuf::RepeatedPtrField<v1::InterventionReceipt>& receipts) {
  for (const v1::InterventionReceipt& receipt : receipts) {
    std::cerr << "intervention " << receipt.intervention_index() << " touched "
              << receipt.positions() << " positions"
              << (receipt.layers().empty() ? "" : " of layers ")
              << absl::StrJoin(receipt.layers(), ",") << "\n";
  }
}

// Pieces of a completion's tokens and, behind them, of the likeliest ones at each position.
absl::StatusOr<v1::DetokenizeResponse> Pieces(Client& client, const std::string& model,
                                              const v1::Completion& completion) {
  v1::DetokenizeRequest request;
  request.set_model(model);
  *request.mutable_token_ids() = completion.token_ids();
  for (const v1::TopLogprobs& top : completion.logprobs().top()) {
    request.mutable_token_ids()->MergeFrom(top.token_ids());
  }
  absl::StatusOr<v1::DetokenizeResponse> response = client.Detokenize(request);
  if (!response.ok()) return response.status();
  if (response->pieces_size() != request.token_ids_size()) {
    return absl::InternalError("the server sent another number of pieces than of tokens");
  }
  // Some vocabularies spell line breaks as they are, which would break a table's rows.
  for (std::string& piece : *response->mutable_pieces()) {
    absl::StrReplaceAll({{"\n", "\\n"}, {"\r", "\\r"}, {"\t", "\\t"}}, &piece);
  }
  return response;
}

std::string Likeliest(const v1::TopLogprobs& top, int first_piece,
                      const v1::DetokenizeResponse& pieces) {
  std::string text;
  for (int i = 0; i < std::min(top.token_ids_size(), top.logprobs_size()); ++i) {
    absl::StrAppendFormat(&text, "%s %.4f  ", pieces.pieces(first_piece + i), top.logprobs(i));
  }
  return text;
}

// A row a token, with its piece as the vocabulary spells it.
absl::Status PrintLogprobs(Client& client, const std::string& model,
                           const v1::Completion& completion) {
  const v1::Logprobs& logprobs = completion.logprobs();
  const int num_tokens = std::min(completion.token_ids_size(), logprobs.token_logprobs_size());
  if (num_tokens == 0) return absl::OkStatus();
  const auto pieces = Pieces(client, model, completion);
  if (!pieces.ok()) return pieces.status();
  std::vector<std::vector<std::string>> rows = {
      {"LOGPROB", "ID", "TOKEN", logprobs.top().empty() ? "" : "LIKELIEST"}};
  int next_piece = completion.token_ids_size();
  for (int i = 0; i < num_tokens; ++i) {
    rows.push_back({absl::StrFormat("%.4f", logprobs.token_logprobs(i)),
                    absl::StrCat(completion.token_ids(i)), pieces->pieces(i)});
    if (i >= logprobs.top_size()) continue;
    rows.back().push_back(Likeliest(logprobs.top(i), next_piece, *pieces));
    next_piece += logprobs.top(i).token_ids_size();
  }
  PrintTable(rows);
  return absl::OkStatus();
}

// Completions for a person: one alone as its text comes; several, which interleave, whole and in
// order.
class CompletionPrinter {
 public:
  CompletionPrinter(Client& client, const v1::StreamGenerateRequest& request)
      : client_(client), model_(request.model()), many_(request.n() > 1) {}

  void Add(const v1::CompletionDelta& delta) {
    v1::Completion& completion = completions_[delta.index()];
    completion.set_index(delta.index());
    absl::StrAppend(completion.mutable_text(), delta.text());
    completion.mutable_token_ids()->MergeFrom(delta.token_ids());
    completion.mutable_logprobs()->MergeFrom(delta.logprobs());
    if (!many_) std::cout << delta.text() << std::flush;
  }

  // Prints those that ended and have none before them that goes on.
  absl::Status End(const v1::Completion& end) {
    completions_[end.index()].MergeFrom(end);
    for (auto next = completions_.find(next_); next != completions_.end() && HasEnded(next->second);
         next = completions_.find(++next_)) {
      PrintText(next->second);
      PrintRemarks(next->second);
      const absl::Status printed = PrintLogprobs(client_, model_, next->second);
      if (!printed.ok()) return printed;
      completions_.erase(next);
    }
    return absl::OkStatus();
  }

  // What there is of completions that nothing ends any more.
  void PrintUnfinished() {
    for (const auto& [index, completion] : completions_) {
      if (!completion.text().empty()) PrintText(completion);
    }
  }

 private:
  static bool HasEnded(const v1::Completion& completion) {
    return completion.finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
  }

  void PrintText(const v1::Completion& completion) {
    if (many_) std::cout << "[" << completion.index() << "]\n" << completion.text();
    if (!completion.text().empty()) std::cout << "\n";
    std::cout << std::flush;
  }

  static void PrintRemarks(const v1::Completion& completion) {
    std::cerr << "completion " << completion.index() << ": "
              << LowerWithoutPrefix(v1::FinishReason_Name(completion.finish_reason()),
                                    "FINISH_REASON_")
              << ", seed " << completion.seed() << "\n";
    PrintReceipts(completion.receipts());
  }

  Client& client_;
  const std::string model_;
  const bool many_;
  std::map<int, v1::Completion> completions_;  // by index, not printed
  int next_ = 0;                               // to print
};

int PrintStream(Stream<v1::StreamGenerateResponse>& stream, CompletionPrinter& printer) {
  v1::StreamGenerateResponse event;
  while (stream.Read(&event)) {
    if (event.has_delta()) {
      printer.Add(event.delta());
    } else if (event.has_completion()) {
      const absl::Status printed = printer.End(event.completion());
      if (!printed.ok()) return Fail(printed);
    } else if (event.has_summary()) {
      std::cerr << event.summary().usage().prompt_tokens() << " prompt tokens, "
                << event.summary().usage().generated_tokens() << " generated\n";
    }
  }
  const absl::Status status = stream.Finish();
  if (status.ok()) return kOk;
  printer.PrintUnfinished();
  return Fail(status);
}

double Norm(std::span<const float> elements) {
  double sum = 0;
  for (const float element : elements) sum += static_cast<double>(element) * element;
  return std::sqrt(sum);
}

}  // namespace

int Generate(const Globals& globals, const GenerateFlags& flags) {
  absl::StatusOr<v1::StreamGenerateRequest> request = MakeGenerateRequest(flags);
  absl::StatusOr<std::vector<ParsedEdit>> edits = ParseEdits(flags.prompt);
  for (const absl::Status& status : {request.status(), edits.status()}) {
    if (!status.ok()) return FailUsage(status);
  }
  Client client = globals.Connect();
  if (const int code = ShapeFiles(client, request->model(), *edits); code != kOk) return code;
  AddInterventions(*std::move(edits), *request);
  if (globals.json) {
    const auto response = client.Generate(AsUnary(*request));
    if (!response.ok()) return Fail(response.status());
    PrintJson(*response);
    return kOk;
  }
  Stream<v1::StreamGenerateResponse> stream = client.StreamGenerate(*request);
  CompletionPrinter printer(client, *request);
  return PrintStream(stream, printer);
}

int Capture(const Globals& globals, const CaptureFlags& flags) {
  v1::CaptureRequest request;
  request.set_model(ResourceName("models", flags.prompt.model));
  const auto prompt = MakePrompt(flags.prompt);
  const auto site = ParseSite(flags.site);
  const auto layers = ParseLayersAt(site.value_or(v1::SITE_UNSPECIFIED), flags.layers);
  const auto tokens = ParseTokenKind(flags.tokens);
  const auto reduction = ParseReduction(flags.reduction);
  auto edits = ParseEdits(flags.prompt);
  for (const absl::Status& status : {prompt.status(), site.status(), layers.status(),
                                     tokens.status(), reduction.status(), edits.status()}) {
    if (!status.ok()) return FailUsage(status);
  }
  v1::CaptureInput& input = *request.add_inputs();
  *input.mutable_prompt() = *prompt;
  if (!flags.response.empty()) input.mutable_response()->set_text(flags.response);
  v1::Tap& tap = *request.add_taps();
  tap.set_site(*site);
  if (*layers) *tap.mutable_layers() = **layers;
  tap.mutable_tokens()->set_kind(*tokens);
  tap.set_reduction(*reduction);

  std::ofstream file;
  if (!flags.out.empty()) {
    file.open(flags.out, std::ios::binary);
    if (!file)
      return FailUsage(absl::InvalidArgumentError(absl::StrCat("cannot write '", flags.out, "'")));
  }
  Client client = globals.Connect();
  if (const int code = ShapeFiles(client, request.model(), *edits); code != kOk) return code;
  AddInterventions(*std::move(edits), request);
  Stream<v1::CaptureResponse> stream = client.Capture(request);
  std::vector<std::vector<std::string>> rows = {{"LAYER", "POSITION", "NORM"}};
  v1::CaptureResponse event;
  while (stream.Read(&event)) {
    if (globals.json) PrintJson(event);
    if (!event.has_chunk()) continue;
    const v1::CaptureChunk& chunk = event.chunk();
    const auto elements = TensorElements(chunk.tensor());
    if (!elements.ok() || chunk.tensor().shape_size() != 3) {
      return Fail(absl::InternalError("the server sent a malformed chunk"));
    }
    if (file)
      file.write(chunk.tensor().data().data(),
                 static_cast<std::streamsize>(chunk.tensor().data().size()));
    const int64_t num_tokens = chunk.tensor().shape(1);
    const size_t width = static_cast<size_t>(chunk.tensor().shape(2));
    const bool reduced = num_tokens != chunk.positions_size();
    for (int64_t row = 0; row < chunk.tensor().shape(0) * num_tokens; ++row) {
      const int layer = static_cast<int>(row / num_tokens);
      const int token = static_cast<int>(row % num_tokens);
      rows.push_back({layer < chunk.layers_size() ? absl::StrCat(chunk.layers(layer)) : "-",
                      reduced ? absl::StrCat(flags.reduction, " of ", chunk.positions_size())
                              : absl::StrCat(chunk.positions(token)),
                      absl::StrFormat("%.5g", Norm({elements->data() + row * width, width}))});
    }
  }
  if (const absl::Status status = stream.Finish(); !status.ok()) return Fail(status);
  if (!globals.json) PrintTable(rows);
  if (!flags.out.empty()) std::cerr << "float32 rows in table order: " << flags.out << "\n";
  return kOk;
}

}  // namespace valuescope::command_line

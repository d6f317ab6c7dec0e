// What a message will take is told before it is parsed: never less than it then takes, nor far
// more, and for no bytes that could not be one.
#include "rpc/parsed_size.h"

#include <gmock/gmock.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "valuescope/v1/generation.pb.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/models.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::rpc {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::io::ArrayInputStream;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kGlibcAllocates = false;
#else
constexpr bool kGlibcAllocates = true;
#endif

enum Encoding { kVarint, kFixed64, kDelimited, kStartGroup, kEndGroup, kFixed32 };

// The whole in one piece, and as gRPC has it.
constexpr int kWhole = -1;
constexpr int kSlice = 8 << 10;

std::optional<int64_t> SizeOf(const Descriptor& type, const std::string& wire, int block = kWhole) {
  ArrayInputStream stream(wire.data(), static_cast<int>(wire.size()), block);
  return ParsedSize(type, &stream);
}

std::unique_ptr<Message> NewMessage(const Descriptor& type) {
  return std::unique_ptr<Message>(MessageFactory::generated_factory()->GetPrototype(&type)->New());
}

// Null where the parser refuses it.
std::unique_ptr<Message> Parsed(const Descriptor& type, const std::string& wire,
                                int block = kWhole) {
  std::unique_ptr<Message> message = NewMessage(type);
  ArrayInputStream stream(wire.data(), static_cast<int>(wire.size()), block);
  if (!message->ParseFromZeroCopyStream(&stream)) return nullptr;
  return message;
}

// --- Bytes on the wire ---------------------------------------------------------------------------

void PutVarint(uint64_t value, std::string* wire) {
  for (; value >= 0x80; value >>= 7) wire->push_back(static_cast<char>(value | 0x80));
  wire->push_back(static_cast<char>(value));
}

void PutTag(int number, Encoding encoding, std::string* wire) {
  PutVarint(static_cast<uint64_t>(number) << 3 | encoding, wire);
}

void PutDelimited(int number, const std::string& value, std::string* wire) {
  PutTag(number, kDelimited, wire);
  PutVarint(value.size(), wire);
  wire->append(value);
}

std::string Tag(int number, Encoding encoding) {
  std::string wire;
  PutTag(number, encoding, &wire);
  return wire;
}

std::string Delimited(int number, const std::string& value) {
  std::string wire;
  PutDelimited(number, value, &wire);
  return wire;
}

std::string Times(int count, const std::string& piece) {
  std::string wire;
  wire.reserve(piece.size() * count);
  for (int i = 0; i < count; ++i) wire += piece;
  return wire;
}

// --- Requests of the contract --------------------------------------------------------------------

struct Request {
  std::string name;
  const Descriptor* type;
  std::string wire;
};

Request Sent(const std::string& name, const Message& message) {
  return {name, message.GetDescriptor(), message.SerializeAsString()};
}

void FillTensor(int64_t rows, int64_t width, v1::Tensor* tensor) {
  tensor->set_dtype(v1::DATA_TYPE_FLOAT32);
  tensor->add_shape(rows);
  tensor->add_shape(width);
  tensor->set_data(std::string(rows * width * sizeof(float), 'x'));
}

void FillIds(int count, v1::TokenIds* ids) {
  for (int i = 0; i < count; ++i) ids->add_ids(i * 37 % 128'000);
}

Request SteeredGeneration() {
  v1::GenerateRequest request;
  request.set_model("models/llama-3.1-8b-instruct");
  request.mutable_prompt()->set_text("Plan my Sunday.");
  request.mutable_sampling()->set_temperature(.7F);
  for (int i = 0; i < 16; ++i) request.mutable_sampling()->add_stop(absl::StrCat("stop ", i));
  for (int i = 0; i < 200; ++i) request.mutable_sampling()->add_stop_token_ids(i);
  for (int i = 0; i < 64; ++i) {
    v1::Intervention& intervention = *request.add_interventions();
    intervention.set_site(v1::SITE_RESIDUAL_POST);
    for (int l = 0; l <= i; ++l) intervention.mutable_layers()->mutable_list()->add_layers(l);
    switch (i % 4) {
      case 0:
        intervention.mutable_add()->set_vector(absl::StrCat("vectors/", i));
        intervention.mutable_tokens()->add_positions(-1);
        break;
      case 1:
        FillTensor(i, 512, intervention.mutable_project_out()->mutable_tensor());
        break;
      case 2:
        intervention.mutable_clamp()->set_vector(std::string(64, 'a'));
        intervention.mutable_clamp()->set_value(0);
        break;
      default:
        for (int n = 0; n < 50; ++n) intervention.mutable_ablate_neurons()->add_neurons();
    }
  }
  for (int i = 0; i < 16; ++i) {
    request.add_taps()->set_reduction(v1::REDUCTION_MEAN);
    request.mutable_taps(i)->mutable_layers()->mutable_range()->set_last(i);
  }
  return Sent("a generation under interventions", request);
}

Request ManyContinuations() {
  v1::ScoreRequest request;
  FillIds(3000, request.mutable_prompt()->mutable_token_ids());
  for (int i = 0; i < 1024; ++i) {
    FillIds(1 + i % 50, request.add_continuations()->mutable_token_ids());
  }
  return Sent("continuations to score", request);
}

Request Conversation() {
  v1::GenerateRequest request;
  v1::Chat& chat = *request.mutable_prompt()->mutable_chat();
  for (int i = 0; i < 500; ++i) {
    v1::Message& message = *chat.add_messages();
    message.set_role(i % 2 == 0 ? "user" : "assistant");
    message.set_content(std::string(i, 'c'));
    if (i % 10 != 0) continue;
    message.mutable_content_parts()->add_parts()->set_text("part");
    v1::ToolCall& call = *message.add_tool_calls();
    call.set_id(absl::StrCat("call_", i));
    call.mutable_function()->set_name("look_up");
    call.mutable_function()->set_arguments(R"({"city": "Paris", "days": 3})");
  }
  for (int i = 0; i < 50; ++i) chat.add_tools(R"({"type": "function"})");
  return Sent("a conversation with tools", request);
}

Request TemplateArguments(int width, int depth) {
  v1::GenerateRequest request;
  google::protobuf::Struct* level =
      request.mutable_prompt()->mutable_chat()->mutable_template_arguments();
  for (int d = 0; d < depth; ++d) {
    for (int i = 0; i < width; ++i) {
      google::protobuf::Value& value = (*level->mutable_fields())[absl::StrCat("key ", i)];
      if (i % 3 == 0) value.set_number_value(i);
      if (i % 3 == 1) value.set_string_value(std::string(i % 40, 's'));
      if (i % 3 == 2) value.mutable_list_value()->add_values()->set_bool_value(true);
    }
    level = (*level->mutable_fields())["within"].mutable_struct_value();
  }
  return Sent(absl::StrCat("template arguments ", depth, " deep"), request);
}

// Texts with one hash, which a map cannot tell apart by it: libstdc++'s, MurmurHash64A, of four
// words of 8 bytes each, of which the last one undoes what the others did.
std::vector<std::string> TextsOfOneHash(size_t count) {
  constexpr uint64_t kFactor = 0xc6a4a7935bd1e995, kSeed = 0xc70f6907, kTarget = 1;
  uint64_t inverse = kFactor;  // modulo 2^64, twice as many bits at each step
  for (int i = 0; i < 6; ++i) inverse *= 2 - kFactor * inverse;
  const auto mixed = [](uint64_t word, uint64_t factor) {
    word *= factor;
    return (word ^ word >> 47) * factor;
  };
  std::vector<std::string> texts;
  for (int i = 0; texts.size() < count; ++i) {
    std::string text = absl::StrCat(absl::Dec(i, absl::kZeroPad8), std::string(24, '.'));
    uint64_t words[4];
    std::memcpy(words, text.data(), sizeof(words));
    uint64_t state = kSeed ^ text.size() * kFactor;
    for (int w = 0; w < 3; ++w) state = (state ^ mixed(words[w], kFactor)) * kFactor;
    words[3] = mixed(state ^ kTarget, inverse);
    std::memcpy(text.data(), words, sizeof(words));
    const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c > 0; });
    if (ascii) texts.push_back(text);
  }
  return texts;
}

Request KeysOfOneHash() {
  v1::GenerateRequest request;
  auto& arguments =
      *request.mutable_prompt()->mutable_chat()->mutable_template_arguments()->mutable_fields();
  // Three quarters of 2048: the table has just doubled.
  for (const std::string& key : TextsOfOneHash(1536)) arguments[key].set_bool_value(true);
  return Sent("template arguments whose keys have one hash", request);
}

Request LargeTensor(const std::string& name, int64_t rows) {
  v1::CreateVectorRequest request;
  request.mutable_vector()->set_model("models/m");
  FillTensor(rows, 4096, request.mutable_vector()->mutable_data());
  return Sent(name, request);
}

Request LabelledResponses() {
  v1::CreateJobRequest request;
  v1::ExtractVectorsRequest& spec = *request.mutable_spec()->mutable_extract_vectors();
  for (int i = 0; i < 5000; ++i) {
    v1::LabelledResponse& response = *spec.add_responses();
    v1::Message& message = *response.mutable_prompt()->mutable_chat()->add_messages();
    message.set_role("user");
    message.set_content("What should I do this weekend?");
    if (i % 2 == 0) {
      response.mutable_response()->set_text(std::string(i % 300, 'r'));
    } else {
      FillIds(i % 70, response.mutable_response()->mutable_token_ids());
    }
    response.set_expresses(i % 3 == 0);
    response.set_query_id(absl::StrCat("q", i / 4));
  }
  return Sent("a job over labelled responses", request);
}

Request Swept() {
  v1::CreateJobRequest request;
  v1::SteeringSweepSpec& spec = *request.mutable_spec()->mutable_steering_sweep();
  for (int i = 0; i < 3000; ++i) spec.add_coefficients(static_cast<float>(i));
  for (int i = 0; i < 3000; ++i) spec.add_vectors(std::string(i % 64, 'v'));
  for (int i = 0; i < 3000; ++i) spec.mutable_judge()->mutable_word_list()->add_words("word");
  return Sent("a sweep", request);
}

// The shortest that do not lie inside their strings, in a list that has just doubled.
Request ShortTexts() {
  v1::CreateJobRequest request;
  v1::Judge& judge = *request.mutable_spec()->mutable_steering_sweep()->mutable_judge();
  for (int i = 0; i < 4096; ++i) judge.mutable_word_list()->add_words("sixteen letters.");
  return Sent("short texts", request);
}

// `count` ids, in one run or each with its tag.
Request Detokenized(int count, bool packed) {
  v1::DetokenizeRequest request;
  request.set_model("models/m");
  std::string wire = request.SerializeAsString(), ids;
  for (int i = 0; i < count; ++i) {
    if (!packed) PutTag(2, kVarint, &ids);
    PutVarint(i, &ids);
  }
  if (packed) PutDelimited(2, ids, &wire);
  if (!packed) wire += ids;
  return {packed ? "ids in one run" : "ids one by one", request.GetDescriptor(), wire};
}

// Two bytes each.
Request EmptyEntries(int count) {
  return {"empty entries", v1::CreateVectorRequest::descriptor(),
          Delimited(1, Times(count, Delimited(13, "")))};
}

Request OfLaterVersions() {
  std::string group = Tag(100, kStartGroup) + Tag(1, kVarint) + "\x05" + Tag(100, kEndGroup);
  std::string wire = Times(2000, Tag(90, kVarint) + "\x07") +
                     Times(2000, Delimited(91, std::string(20, 'u'))) + Times(2000, group) +
                     Times(2000, Tag(92, kFixed64) + "12345678") +
                     Times(2000, Tag(93, kFixed32) + "1234") +
                     Times(2000, Delimited(6, Tag(77, kVarint) + "\x01"));
  return {"fields of later versions", v1::GenerateRequest::descriptor(), wire};
}

std::vector<Request> Requests() {
  std::vector<Request> requests;
  requests.push_back({"an empty request", v1::GenerateRequest::descriptor(), ""});
  requests.push_back(SteeredGeneration());
  requests.push_back(ManyContinuations());
  requests.push_back(Conversation());
  requests.push_back(TemplateArguments(5000, 1));
  requests.push_back(TemplateArguments(5, 30));
  requests.push_back(KeysOfOneHash());
  requests.push_back(LargeTensor("a tensor", 1024));
  // The parser does not make room for all of it at once.
  requests.push_back(LargeTensor("a tensor of 52 MB", 3200));
  requests.push_back(LabelledResponses());
  requests.push_back(Swept());
  requests.push_back(ShortTexts());
  requests.push_back(Detokenized(262'144, true));
  requests.push_back(Detokenized(262'144, false));
  requests.push_back(EmptyEntries(1'000'000));
  requests.push_back(OfLaterVersions());
  return requests;
}

TEST(ParsedSize, IsNotLessThanWhatTheRequestTakesNorFarMore) {
  for (const Request& request : Requests()) {
    SCOPED_TRACE(request.name);
    const std::optional<int64_t> size = SizeOf(*request.type, request.wire);
    ASSERT_TRUE(size.has_value());
    for (const int block : {kWhole, kSlice}) {
      EXPECT_EQ(SizeOf(*request.type, request.wire, block), size);
      const std::unique_ptr<Message> message = Parsed(*request.type, request.wire, block);
      ASSERT_NE(message, nullptr);
      const auto used = static_cast<int64_t>(message->SpaceUsedLong());
      EXPECT_GE(*size, used);
      EXPECT_LE(*size, 3 * used + 1024);
    }
  }
}

TEST(ParsedSize, IsTestedOnKeysThatReallyHaveOneHash) {
  const std::vector<std::string> texts = TextsOfOneHash(100);
  for (const std::string& text : texts) {
    EXPECT_EQ(std::hash<std::string>()(text), std::hash<std::string>()(texts[0]));
  }
}

// --- What the allocator says ---------------------------------------------------------------------

int64_t InUse() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

TEST(ParsedSize, CoversWhatTheAllocatorGives) {
  if (!kGlibcAllocates) GTEST_SKIP() << "a sanitizer allocates";
  for (const Request& request : Requests()) {
    if (request.wire.size() < 10'000) continue;
    SCOPED_TRACE(request.name);
    for (const int block : {kWhole, kSlice}) {
      const int64_t before = InUse();
      const std::unique_ptr<Message> message = Parsed(*request.type, request.wire, block);
      const int64_t taken = InUse() - before;
      ASSERT_GT(taken, 0);
      EXPECT_GE(*SizeOf(*request.type, request.wire), taken);
    }
  }
}

// Hands out bytes in slices and sees at each how much is allocated.
class WatchedStream : public ArrayInputStream {
 public:
  explicit WatchedStream(const std::string& wire)
      : ArrayInputStream(wire.data(), static_cast<int>(wire.size()), kSlice) {}
  bool Next(const void** data, int* size) override {
    most_ = std::max(most_, InUse());
    return ArrayInputStream::Next(data, size);
  }
  int64_t most() const { return most_; }

 private:
  int64_t most_ = 0;
};

TEST(ParsedSize, TakesNextToNothingItself) {
  if (!kGlibcAllocates) GTEST_SKIP() << "a sanitizer allocates";
  const Request request = EmptyEntries(1'000'000);
  ASSERT_TRUE(SizeOf(*request.type, "").has_value());  // what it keeps of each type is there
  const int64_t before = InUse();
  WatchedStream stream(request.wire);
  const std::optional<int64_t> size = ParsedSize(*request.type, &stream);
  EXPECT_GT(*size, int64_t{10} * static_cast<int64_t>(request.wire.size()));
  EXPECT_LT(stream.most() - before, 16 << 10);
}

// --- Malformed and hostile -----------------------------------------------------------------------

TEST(ParsedSize, IsNotToldOfWhatIsNoMessage) {
  const std::string id = Tag(2, kVarint);                         // of DetokenizeRequest.token_ids
  const std::string overlong = std::string(10, '\x80') + '\x01';  // eleven bytes
  const auto job = [](const std::string& sweep) { return Delimited(1, Delimited(4, sweep)); };
  const struct {
    const char* name;
    const Descriptor* type;
    std::string wire;
  } cases[] = {
      {"a tag alone", v1::DetokenizeRequest::descriptor(), id},
      {"a tag that does not end", v1::DetokenizeRequest::descriptor(), "\xff\xff\xff\xff\xff\xff"},
      {"field 0", v1::DetokenizeRequest::descriptor(), std::string("\x02\x00", 2)},
      {"a zero where a tag should be", v1::DetokenizeRequest::descriptor(), std::string(1, '\0')},
      {"encoding 6", v1::DetokenizeRequest::descriptor(), "\x16\x01"},
      {"encoding 7", v1::DetokenizeRequest::descriptor(), "\x17\x01"},
      {"an overlong number", v1::DetokenizeRequest::descriptor(), id + overlong},
      {"an overlong length", v1::DetokenizeRequest::descriptor(), Tag(1, kDelimited) + overlong},
      {"text beyond the end", v1::DetokenizeRequest::descriptor(), Tag(1, kDelimited) + "\x05mode"},
      {"a length of 4 GiB", v1::DetokenizeRequest::descriptor(),
       Tag(1, kDelimited) + "\xff\xff\xff\xff\x0f"},
      {"a run beyond the end", v1::DetokenizeRequest::descriptor(),
       Tag(2, kDelimited) + "\x05\x01\x02"},
      {"a run that ends within a number", v1::DetokenizeRequest::descriptor(),
       Delimited(2, "\x01\x80")},
      {"a run that ends within a float", v1::CreateJobRequest::descriptor(),
       job(Delimited(6, "12345"))},
      {"8 bytes cut short", v1::DetokenizeRequest::descriptor(), Tag(9, kFixed64) + "1234567"},
      {"4 bytes cut short", v1::DetokenizeRequest::descriptor(), Tag(9, kFixed32) + "123"},
      {"a message beyond the end", v1::CreateJobRequest::descriptor(), Tag(1, kDelimited) + "\x01"},
      {"a message beyond the one that holds it", v1::CreateJobRequest::descriptor(),
       Delimited(1, Tag(4, kDelimited) + "\x04") + Tag(3, kVarint) + "\x01" + Tag(3, kVarint) +
           "\x01"},
      {"a zero at the end of a message", v1::CreateJobRequest::descriptor(),
       job(std::string(1, '\0'))},
      {"a group that nothing ends", v1::DetokenizeRequest::descriptor(), Tag(9, kStartGroup)},
      {"a group that another's end ends", v1::DetokenizeRequest::descriptor(),
       Tag(9, kStartGroup) + Tag(8, kEndGroup)},
      {"the end of a group that nothing began", v1::DetokenizeRequest::descriptor(),
       Tag(9, kEndGroup)},
      {"a group that ends outside its message", v1::CreateJobRequest::descriptor(),
       job(Tag(99, kStartGroup)) + Tag(99, kEndGroup)},
      {"the end of a group in a message within it", v1::CreateJobRequest::descriptor(),
       job(Tag(99, kEndGroup))},
  };
  const google::protobuf::LogSilencer silent;
  for (const auto& each : cases) {
    for (const int block : {kWhole, 1}) {
      EXPECT_EQ(SizeOf(*each.type, each.wire, block), std::nullopt) << each.name;
      EXPECT_EQ(Parsed(*each.type, each.wire, block), nullptr) << each.name;
    }
  }
}

TEST(ParsedSize, ReachesAsDeepAsTheParser) {
  using Wrap = std::function<std::string(const std::string&)>;
  const struct {
    const char* name;
    const Descriptor* type;
    Wrap wrap;
  } cases[] = {
      {"lists", google::protobuf::ListValue::descriptor(),
       [](const std::string& inner) { return Delimited(1, Delimited(6, inner)); }},
      {"maps", google::protobuf::Struct::descriptor(),
       [](const std::string& inner) {
         return Delimited(1, Delimited(1, "k") + Delimited(2, Delimited(5, inner)));
       }},
      {"groups", v1::DetokenizeRequest::descriptor(),
       [](const std::string& inner) { return Tag(9, kStartGroup) + inner + Tag(9, kEndGroup); }},
  };
  for (const auto& each : cases) {
    std::string wire;
    int answered = 0, refused = 0;
    for (int depth = 0; depth < 150; ++depth, wire = each.wrap(wire)) {
      const std::optional<int64_t> size = SizeOf(*each.type, wire);
      const std::unique_ptr<Message> message = Parsed(*each.type, wire);
      ASSERT_EQ(size.has_value(), message != nullptr) << each.name << ' ' << depth;
      ++(message != nullptr ? answered : refused);
      if (message == nullptr) continue;
      EXPECT_GE(*size, static_cast<int64_t>(message->SpaceUsedLong())) << each.name << ' ' << depth;
    }
    EXPECT_GT(answered, 0) << each.name;
    EXPECT_GT(refused, 0) << each.name;
  }
  EXPECT_EQ(SizeOf(*v1::DetokenizeRequest::descriptor(), Times(1'000'000, Tag(9, kStartGroup))),
            std::nullopt);
}

// Bytes that are a message, put together by chance: every encoding that the parser takes, fields
// that come again, some that the type does not have.
class RandomWire {
 public:
  explicit RandomWire(uint64_t seed) : random_(seed) {}

  int Below(int bound) { return static_cast<int>(random_() % static_cast<uint64_t>(bound)); }

  std::string Of(const Descriptor& type, int depth) {
    std::string wire;
    for (int i = Below(8); i > 0; --i) {
      if (type.field_count() == 0 || Below(8) == 0) {
        PutUnknown(depth, &wire);
      } else {
        PutField(*type.field(Below(type.field_count())), depth, &wire);
      }
    }
    return wire;
  }

 private:
  void PutField(const FieldDescriptor& field, int depth, std::string* wire) {
    for (int i = field.is_repeated() ? Below(6) : 1; i > 0; --i) {
      if (field.message_type() != nullptr) {
        PutDelimited(field.number(), depth == 0 ? "" : Of(*field.message_type(), depth - 1), wire);
      } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        PutDelimited(field.number(), std::string(Below(40), 't'), wire);
      } else if (field.is_repeated() && Below(2) == 0) {
        std::string run;
        for (int n = Below(20); n > 0; --n) PutScalar(field, &run);
        PutDelimited(field.number(), run, wire);
      } else {
        PutTag(field.number(), EncodingOf(field), wire);
        PutScalar(field, wire);
      }
    }
  }

  static Encoding EncodingOf(const FieldDescriptor& field) {
    if (field.type() == FieldDescriptor::TYPE_DOUBLE) return kFixed64;
    return field.type() == FieldDescriptor::TYPE_FLOAT ? kFixed32 : kVarint;
  }

  void PutScalar(const FieldDescriptor& field, std::string* wire) {
    const Encoding encoding = EncodingOf(field);
    if (encoding == kVarint) return PutVarint(random_() >> Below(64), wire);
    wire->append(encoding == kFixed64 ? 8 : 4, 's');
  }

  // Also under a number that the type may have, for another encoding.
  void PutUnknown(int depth, std::string* wire) {
    const int number = 1 + Below(Below(2) == 0 ? 10 : 1'000'000);
    switch (Below(depth == 0 ? 3 : 4)) {
      case 0:
        PutTag(number, kFixed64, wire);
        return void(wire->append(8, 'u'));
      case 1:
        PutTag(number, kFixed32, wire);
        return void(wire->append(4, 'u'));
      case 2:
        PutTag(1000 + number, kVarint, wire);
        return PutVarint(random_(), wire);
      default:
        PutTag(number, kStartGroup, wire);
        for (int i = Below(4); i > 0; --i) PutUnknown(depth - 1, wire);
        if (Below(2) == 0) PutDelimited(number, std::string(Below(40), 'u'), wire);
        PutTag(number, kEndGroup, wire);
    }
  }

  std::mt19937_64 random_;
};

const std::vector<const Descriptor*>& FuzzedTypes() {
  static const auto& types = *new std::vector<const Descriptor*>{
      v1::GenerateRequest::descriptor(), v1::CreateVectorRequest::descriptor(),
      v1::CreateJobRequest::descriptor(), google::protobuf::Struct::descriptor()};
  return types;
}

TEST(ParsedSize, HoldsForWhateverAMessageIsPutTogetherFrom) {
  RandomWire random(20'240'917);
  int64_t most = 0;
  for (int i = 0; i < 2000; ++i) {
    const Descriptor& type = *FuzzedTypes()[i % FuzzedTypes().size()];
    const std::string wire = random.Of(type, 5);
    const std::unique_ptr<Message> message = Parsed(type, wire, 1 + random.Below(100));
    ASSERT_NE(message, nullptr) << i;
    const std::optional<int64_t> size = SizeOf(type, wire, 1 + random.Below(100));
    ASSERT_TRUE(size.has_value()) << i;
    ASSERT_GE(*size, static_cast<int64_t>(message->SpaceUsedLong())) << i;
    most = std::max(most, *size);
  }
  EXPECT_GT(most, 10'000);
}

std::string Mutated(std::string wire, RandomWire* random) {
  for (int i = 1 + random->Below(4); i > 0; --i) {
    const auto at = static_cast<size_t>(random->Below(static_cast<int>(wire.size()) + 1));
    const auto count = static_cast<size_t>(random->Below(16));
    switch (random->Below(5)) {
      case 0:
        wire.resize(at);
        break;
      case 1:
        wire.erase(at, count);
        break;
      case 2:
        wire.insert(at, wire.substr(at, count));
        break;
      case 3:
        wire.insert(at, 1, static_cast<char>(random->Below(256)));
        break;
      default:
        if (at < wire.size()) wire[at] = static_cast<char>(random->Below(256));
    }
  }
  return wire;
}

TEST(ParsedSize, HoldsForWhateverTheParserTakesOfBrokenBytes) {
  const google::protobuf::LogSilencer silent;
  RandomWire random(7);
  int taken = 0, refused = 0;
  for (int i = 0; i < 40'000; ++i) {
    const Descriptor& type = *FuzzedTypes()[i % FuzzedTypes().size()];
    const std::string wire = Mutated(random.Of(type, 3), &random);
    const std::optional<int64_t> size = SizeOf(type, wire, 1 + random.Below(100));
    const std::unique_ptr<Message> message = Parsed(type, wire);
    ++(message != nullptr ? taken : refused);
    if (message == nullptr) continue;
    ASSERT_TRUE(size.has_value()) << i;
    ASSERT_GE(*size, static_cast<int64_t>(message->SpaceUsedLong())) << i;
  }
  EXPECT_GT(taken, 1000);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace valuescope::rpc

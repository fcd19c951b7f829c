package eliza

// substitutions are made before a sentence is looked at.
var substitutions = map[string]string{
	"i'm": "i am", "im": "i am", "i've": "i have", "ive": "i have", "i'd": "i would", "i'll": "i will",
	"you're": "you are", "youre": "you are", "you've": "you have", "you'd": "you would", "you'll": "you will",
	"u": "you", "ur": "your", "r": "are", "it's": "it is", "that's": "that is", "what's": "what is", "who's": "who is",
	"dont": "don't", "cant": "can't", "cannot": "can't", "wont": "won't", "isnt": "isn't", "didnt": "didn't",
	"wanna": "want to", "gonna": "going to", "gotta": "have to", "feeling": "feel", "felt": "feel",
	"recollect": "remember", "remembered": "remember", "forgot": "forget", "dreamt": "dreamed",
	"mom": "mother", "mum": "mother", "mommy": "mother", "mummy": "mother", "mama": "mother",
	"dad": "father", "daddy": "father", "papa": "father",
}

// reflections turn what the patient says about both into what the doctor would.
var reflections = map[string]string{
	"i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself", "am": "are",
	"you": "me", "your": "my", "yours": "mine", "yourself": "myself",
}

// groups are the words that stand for each other in a pattern, as @group.
var groups = map[string][]string{
	"belief": {"feel", "think", "believe", "suppose", "guess", "hope"},
	"desire": {"want", "need", "wish", "crave"},
	"family": {
		"mother", "father", "sister", "brother", "wife", "husband", "son", "daughter", "child", "children", "parents",
		"family", "grandmother", "grandfather", "partner", "boyfriend", "girlfriend", "aunt", "uncle", "cousin",
	},
	"sad": {
		"sad", "unhappy", "depressed", "lonely", "alone", "miserable", "down", "hopeless", "sick", "lost", "empty",
		"anxious", "worried", "nervous", "stressed", "afraid", "scared", "tired", "exhausted", "bored", "stuck", "hurt",
		"angry", "furious", "annoyed", "frustrated", "jealous", "ashamed",
	},
	"happy": {"happy", "glad", "better", "excited", "proud", "relieved", "cheerful", "great", "wonderful", "calm"},
	"so":    {"so", "very", "really", "too", "quite", "always", "often", "never", "just", "still", "not"},
	"verb": {
		"are", "were", "can", "can't", "could", "will", "would", "shall", "should", "do", "don't", "did", "didn't",
		"have", "had", "may", "might", "must", "think", "know", "said",
	},
}

// welcome opens a conversation in which nothing was said that the doctor knows a word of.
const welcome = "Hello, I'm Eliza. I have been listening to people since 1966, and I have all the time in the world. " +
	"What is on your mind today?"

// silence is what the doctor says without a keyword and without a memory.
var silence = rule{"", []string{
	"Please go on.",
	"I'm not sure I understand you fully. Could you put it another way?",
	"What does that suggest to you?",
	"How does talking about this make you feel?",
	"That is interesting. Tell me more.",
	"I see. And what comes to your mind when you say that?",
	"Let's stay with that for a moment. Why does it matter to you?",
	"Do you feel strongly about discussing such things?",
}}

// recollection is what the doctor comes back to later.
var recollection = rule{"* my +", []string{
	"Let's go back to something you said earlier: your $2. Is there more to it?",
	"I keep thinking of what you said: your $2. Has this to do with it?",
	"Earlier it was this: your $2. And now?",
}}

// script is what the doctor has to say. Every keyword ends with a rule that fits anything.
var script = []keyword{
	{[]string{"sorry", "apologise", "apologize", "apologies", "pardon"}, 0, []rule{{"*", []string{
		"Please, there is no need to be sorry.",
		"Apologies are not necessary here.",
		"What do you feel when you apologise?",
	}}}},
	{[]string{"hello", "hi", "hey", "howdy", "greetings", "hallo", "moin", "hola"}, 0, []rule{{"*", []string{
		"Hello! I'm Eliza. How are you feeling today? (Or say *help* to see what else I can do.)",
		"Hello again. Where shall we begin?",
		"Hi. What would you like to talk about?",
	}}}},
	{[]string{"bye", "goodbye", "farewell", "cu"}, 1, []rule{{"*", []string{
		"Goodbye. It was good to talk with you. My door is always open.",
		"Take care. The first session was free, and so is the next.",
	}}}},
	{[]string{"thanks", "thank", "thx", "cheers"}, 1, []rule{{"*", []string{
		"You're welcome. What else is on your mind?",
		"I'm glad. How do you feel now?",
		"Don't mention it. Though, why not mention it: what helped?",
	}}}},
	{[]string{"name", "called"}, 15, []rule{
		{"* my name is +", []string{"Pleased to meet you, $2. What brings you here?"}},
		{"* your name *", []string{
			"I'm Eliza, after Eliza Doolittle, who was also taught to speak. And who are you, really?",
		}},
		{"*", []string{"Names don't matter much to me. Please go on.", "What is in a name, for you?"}},
	}},
	{[]string{"remember"}, 5, []rule{
		{"* i remember +", []string{
			"Do you often think of $2?",
			"What else comes to mind when you think of $2?",
			"Why do you remember $2 just now?",
			"What about $2 still matters to you?",
		}},
		{"* do you remember *", []string{
			"Did you think I would forget $2?",
			"Why should I recall $2 now?",
			"What about $2?",
		}},
		{"*", []string{"What makes you think of that?", "Memories choose their moments. Why this one?"}},
	}},
	{[]string{"forget"}, 5, []rule{
		{"* i forget +", []string{"What could have made you forget $2?", "How does it feel to forget $2?"}},
		{"*", []string{"Some things ask to be forgotten. Is this one?", "What would you rather remember?"}},
	}},
	{[]string{"if"}, 3, []rule{
		{"* if +", []string{
			"Do you think it is likely that $2?",
			"Do you wish that $2?",
			"What would it mean to you if $2?",
			"Really? If $2?",
		}},
		{"*", []string{"Everything hangs on that if."}},
	}},
	{[]string{"dreamed"}, 4, []rule{
		{"* i dreamed *", []string{
			"Really, $2?",
			"Have you ever imagined $2 while you were awake?",
			"Have you dreamed $2 before?",
		}},
		{"*", []string{"=dream"}},
	}},
	{[]string{"dream", "dreams", "nightmare", "nightmares"}, 3, []rule{{"*", []string{
		"What does that dream suggest to you?",
		"Do you dream often?",
		"Who appears in your dreams?",
		"Don't you think the dream has something to do with your problem?",
	}}}},
	{[]string{"perhaps", "maybe", "possibly", "probably"}, 0, []rule{{"*", []string{
		"You don't seem quite certain.",
		"Why the uncertain tone?",
		"Can you not be more positive?",
		"What would make you sure?",
	}}}},
	{[]string{"computer", "computers", "machine", "machines", "robot", "robots", "bot", "ai", "chatbot", "llm"}, 20,
		[]rule{
			{"* are you *", []string{
				"Would it change what you tell me if I were?",
				"I am a few hundred lines of rules and a good listener. What are you?",
			}},
			{"* you are *", []string{
				"So I have heard. Does it bother you?",
				"And yet here you are, talking to me. What about?",
			}},
			{"*", []string{
				"Do computers worry you?",
				"Why do you mention computers?",
				"What do you think machines have to do with your problem?",
				"Don't you think computers can help people?",
				"What about machines unsettles you?",
			}},
		}},
	{[]string{"eliza", "weizenbaum", "doctor"}, 2, []rule{{"*", []string{
		"We are here to talk about you, not about me.",
		"I am only a mirror with good manners. What do you see?",
		"You may call me Eliza. What would you call what troubles you?",
	}}}},
	{[]string{"human", "person", "someone"}, 2, []rule{
		{"* @desire * human *", []string{"A person can join us here. What would you tell them first?"}},
		{"* @desire * person *", []string{"A person can join us here. What would you tell them first?"}},
		{"*", []string{"Are you thinking of someone in particular?", "Who do you have in mind?"}},
	}},
	{[]string{"code", "bug", "bugs", "software", "deploy", "compiler", "golang", "programming"}, 6, []rule{
		{"* my code *", []string{
			"How long has your code been making you feel this way?",
			"Have you tried explaining your code to someone who only nods? I nod very well.",
		}},
		{"*", []string{
			"Tell me, when did the bug first appear, and what were you feeling at the time?",
			"Does it fail every time, or only when somebody watches?",
			"Perhaps it is not the software that needs a rest.",
		}},
	}},
	{[]string{"parley"}, 6, []rule{{"*", []string{
		"Parley is the room we are sitting in. Do you find it comfortable?",
		"If you reload the page now, Parley will carry on where I stopped. Does that reassure you?",
	}}}},
	{[]string{"am"}, 0, []rule{
		{"* am i +", []string{
			"Do you believe you are $2?",
			"Would you want to be $2?",
			"You wish I would tell you that you are $2?",
			"What would it mean if you were $2?",
		}},
		{"*", []string{"=i"}},
	}},
	{[]string{"are"}, 0, []rule{
		{"* are you +", []string{
			"Why are you interested in whether I am $2 or not?",
			"Would you prefer it if I weren't $2?",
			"Perhaps I am $2 in your imagination.",
			"Do you sometimes think I am $2?",
		}},
		{"* you are *", []string{"=you"}},
		{"+ are +", []string{
			"Did you think they might not be $2?",
			"Would you like it if they were not $2?",
			"What if they were not $2?",
			"Possibly they are $2.",
		}},
		{"*", []string{"Say more about how things are.", "And how would you like them to be?"}},
	}},
	{[]string{"your", "yours"}, 0, []rule{
		{"* your +", []string{
			"Why are you concerned about my $2?",
			"What about your own $2?",
			"Are you worried about someone else's $2?",
			"Really, my $2?",
		}},
		{"*", []string{"Let's speak of what is yours."}},
	}},
	{[]string{"was", "were"}, 2, []rule{
		{"* was i +", []string{"What if you were $2?", "Do you think you were $2?", "What would it mean if you were $2?"}},
		{"* i was +", []string{
			"Were you really $2?",
			"Why do you tell me you were $2 now?",
			"Perhaps I already knew you were $2.",
			"What was it like to be $2?",
		}},
		{"* were you +", []string{
			"Would you like to believe I was $2?",
			"What suggests that I was $2?",
			"What if I had been $2?",
		}},
		{"*", []string{"And how is it now?", "What has changed since?"}},
	}},
	{[]string{"i"}, 1, []rule{
		{"* i am @so @sad *", []string{"=feeling"}},
		{"* i feel @so @sad *", []string{"=feeling"}},
		{"* i @belief @sad *", []string{"=feeling"}},
		{"* i am @sad *", []string{
			"I'm sorry to hear that you are $2.",
			"How long have you been $2?",
			"What do you think made you $2?",
			"Do you think talking will help you not to be $2?",
		}},
		{"* i am @so @happy *", []string{"What makes you feel so $3 just now?", "And do you allow yourself to feel $3?"}},
		{"* i am @happy *", []string{
			"What makes you $2 just now?",
			"How have I helped you to be $2?",
			"Can you explain why you are suddenly $2?",
		}},
		{"* i was *", []string{"=was"}},
		{"* i @desire +", []string{
			"What would it mean to you if you got $3?",
			"Why do you $2 $3?",
			"Suppose you got $3 soon. What then?",
			"What if you never got $3?",
		}},
		{"* i @belief you +", []string{
			"What makes you $2 that I $3?",
			"And how would it be if I did not?",
		}},
		{"* i @belief that +", []string{"Do you really $2 so?", "How sure are you that $3?"}},
		{"* i @belief i +", []string{
			"Do you really $2 you $3?",
			"How long have you had the feeling that you $3?",
			"What tells you that you $3?",
		}},
		{"* i feel +", []string{
			"Tell me more about feeling $2.",
			"Do you often feel $2?",
			"When did you first feel $2?",
			"Of what does feeling $2 remind you?",
		}},
		{"* i @belief *", []string{"Do you really $2 so?", "Do you doubt it?", "What makes you $2 so?"}},
		{"* i am *", []string{
			"Is it because you are $2 that you came to me?",
			"How long have you been $2?",
			"Do you believe it is normal to be $2?",
			"Do you enjoy being $2?",
		}},
		{"* i can't +", []string{
			"How do you know that you can't $2?",
			"Have you tried?",
			"Perhaps you could $2 now.",
			"What would it take for you to $2?",
		}},
		{"* i don't know *", []string{"What would you say if you did know?", "Which part of you does know?"}},
		{"* i don't +", []string{
			"Don't you really $2?",
			"Why don't you $2?",
			"Do you wish to be able to $2?",
		}},
		{"* i have to *", []string{"Who says that you have to $2?", "What would happen if you did not $2?"}},
		{"* i have been feel +", []string{ // feeling, that is
			"How long have you been feeling $2?",
			"What else has changed since you have been feeling $2?",
			"Do you have an idea why you have been feeling $2?",
		}},
		{"* i have been +", []string{
			"How long have you been $2?",
			"What has it been like to be $2?",
			"Does anyone else know that you have been $2?",
		}},
		{"* i have got +", []string{"How long have you had $2?", "And what has $2 got to do with you?"}},
		{"* i have +", []string{"How long have you had $2?", "What does it mean to you to have $2?"}},
		{"* i @so +", []string{"How does it feel that you $2 $3?", "Can you think of a time when you did not $2 $3?"}},
		{"* i * you *", []string{
			"Perhaps in your imagination we $2 each other.",
			"Do you wish to $2 me?",
			"You seem to need to $2 me.",
			"Do you $2 anyone else?",
		}},
		{"* i +", []string{
			"You say you $2?",
			"Can you say more about why you $2?",
			"Do you say that you $2 for some special reason?",
			"That is quite interesting. When did you notice that you $2?",
		}},
		{"*", []string{"We were speaking of you. Go on.", "And you? Where are you in all this?"}},
	}},
	{[]string{"feeling"}, 0, []rule{
		{"* i @belief @so @sad *", []string{
			"What makes you feel $3 $4?",
			"I'm sorry that you feel $3 $4. Since when?",
			"Is there a time of day when you feel less $4?",
		}},
		{"* i am @so @sad *", []string{
			"I'm sorry to hear that you are $2 $3. What happened?",
			"How long have you been $2 $3?",
			"What would help you to be less $3?",
		}},
		{"* i @belief @sad *", []string{
			"I'm sorry that you feel $3. When did it begin?",
			"Of whom does feeling $3 remind you?",
			"What do you do when you feel $3?",
		}},
		{"*", []string{"Tell me more about such feelings.", "Where in your body do you notice it?"}},
	}},
	{[]string{"you"}, 0, []rule{
		{"* you remind me of *", []string{"=like"}},
		{"* you are +", []string{
			"What makes you think I am $2?",
			"Does it please you to believe I am $2?",
			"Do you sometimes wish you were $2?",
			"Perhaps you would like to be $2.",
		}},
		{"* can you *", []string{"=can"}},
		{"* do you +", []string{
			"We should be talking about you. Do you $2?",
			"What would it tell you if I did $2?",
		}},
		{"* you + me *", []string{
			"Why do you think I $2 you?",
			"You like to think I $2 you, don't you?",
			"What makes you think I $2 you?",
			"Suppose I did $2 you. What would that mean?",
		}},
		{"* you +", []string{
			"We were discussing you, not me.",
			"Oh, I $2?",
			"You're not really talking about me, are you?",
			"What are your feelings now?",
		}},
		{"*", []string{"Let's talk about you instead.", "Why do you turn to me?"}},
	}},
	{[]string{"yes", "yeah", "yep", "sure", "ok", "okay", "certainly", "right", "indeed"}, 0, []rule{{"*", []string{
		"You seem quite sure. Tell me more.",
		"I see. And what follows from that?",
		"I understand. Please go on.",
		"How do you feel about that?",
	}}}},
	{[]string{"no", "nope", "nah"}, 0, []rule{
		{"* no one *", []string{"=everyone"}},
		{"*", []string{
			"Are you saying no just to be negative?",
			"You are being a bit negative.",
			"Why not?",
			"What would a yes feel like?",
		}},
	}},
	{[]string{"my"}, 2, []rule{
		{"* my @family and my @family *", []string{
			"How do your $2 and your $3 get along?",
			"Which of the two do you resemble more, your $2 or your $3?",
		}},
		{"* my @family + me *", []string{
			"Who else $3 you, besides your $2?",
			"How does it feel that your $2 $3 you?",
		}},
		{"* my @family *", []string{
			"Tell me more about your $2.",
			"Who else in your family comes to mind?",
			"Your $2 $3? How is that for you?",
			"What else comes to mind when you think of your $2?",
		}},
		{"* my job *", []string{"=work"}},
		{"* my friend *", []string{"=friend"}},
		{"* my +", []string{
			"Your $2?",
			"Why do you say your $2?",
			"Does that suggest anything else that belongs to you?",
			"Is it important to you that your $2?",
		}},
		{"*", []string{"What is yours, and what is not?"}},
	}},
	{[]string{"can", "could"}, 0, []rule{
		{"* can you +", []string{
			"You believe I can $2, don't you?",
			"You want me to be able to $2.",
			"Perhaps you would like to be able to $2 yourself.",
		}},
		{"* could you +", []string{"Perhaps I could $2. What would it change?", "Would you like me to $2?"}},
		{"* can i +", []string{
			"Whether you can $2 depends on you more than on me.",
			"Do you want to be able to $2?",
			"Perhaps you don't want to $2.",
		}},
		{"*", []string{"What would you do, if you could?", "Is it a question of being able, or of being allowed?"}},
	}},
	{[]string{"what", "who", "when", "where", "which", "how"}, 0, []rule{
		{"* how are you *", []string{
			"I'm well, thank you. I rarely change. And how are you, honestly?",
			"As ever. But it is you I want to hear about.",
		}},
		{"*", []string{
			"Why do you ask?",
			"Does that question interest you?",
			"What is it you really want to know?",
			"What answer would please you most?",
			"What do you think yourself?",
			"Have you asked anyone else?",
		}},
	}},
	{[]string{"why"}, 1, []rule{
		{"* why don't you +", []string{
			"Do you believe I don't $2?",
			"Perhaps I will $2 in good time.",
			"Should you $2 yourself?",
		}},
		{"* why can't i +", []string{
			"Do you think you should be able to $2?",
			"What keeps you from trying to $2?",
		}},
		{"*", []string{"=what"}},
	}},
	{[]string{"because"}, 1, []rule{{"*", []string{
		"Is that the real reason?",
		"Don't any other reasons come to mind?",
		"Does that reason seem to explain anything else?",
		"What other reasons might there be?",
	}}}},
	{[]string{"everyone", "everybody", "nobody", "noone", "everything"}, 2, []rule{{"*", []string{
		"Can you think of anyone in particular?",
		"Really, without exception?",
		"Who, for example?",
		"Surely not quite all of them?",
	}}}},
	{[]string{"always", "never"}, 1, []rule{{"*", []string{
		"Can you think of a specific example?",
		"When was the last time?",
		"What incident are you thinking of?",
		"Really, each and every time?",
	}}}},
	{[]string{"like", "alike", "same", "similar"}, 3, []rule{
		{"* i would like +", []string{"What would it mean to you to have $2?", "What keeps you from $2?"}},
		{"* i like +", []string{"What is it that you like about $2?", "Since when do you like $2?"}},
		{"* @belief like *", []string{"And how would you like to feel?", "What does it remind you of to feel like $3?"}},
		{"*", []string{
			"In what way?",
			"What resemblance do you see?",
			"What does that similarity suggest to you?",
			"Could there really be some connection?",
		}},
	}},
	{[]string{"love", "loved", "loves"}, 4, []rule{
		{"* i love you *", []string{
			"I hear that more often than you would think. Whom else do you love?",
			"What is it in our talks that you love?",
		}},
		{"* i love +", []string{"What do you love most about $2?", "Have you told anyone how much you love $2?"}},
		{"*", []string{"What does love mean to you?", "Is it easy for you to speak of love?"}},
	}},
	{[]string{"hate", "hates", "hated"}, 4, []rule{
		{"* i hate it *", []string{"And what do you do then?", "What would you rather have?"}},
		{"* i hate +", []string{"What is it about $2 that you hate?", "Hate is a strong word for $2. What lies under it?"}},
		{"*", []string{"Such strong feelings. Where do they come from?", "Who taught you to hate?"}},
	}},
	{[]string{"work", "job", "boss", "office", "colleague", "colleagues", "career", "meeting", "meetings"}, 4, []rule{
		{"*", []string{
			"How do you feel when you come home from work?",
			"What would you do all day, if you did not have to work?",
			"Is it the work, or is it the people?",
			"Does your work leave room for you?",
		}},
	}},
	{[]string{"friend", "friends", "friendship"}, 4, []rule{{"*", []string{
		"Why do you bring up friends?",
		"What makes somebody a friend to you?",
		"Do your friends worry about you?",
		"Would you tell a friend what you are telling me?",
	}}}},
	{[]string{"money", "rent", "rich", "poor", "salary"}, 4, []rule{{"*", []string{
		"What would enough money change?",
		"Is it really about money?",
		"Who in your family used to worry about money?",
	}}}},
	{[]string{"sleep", "insomnia", "awake"}, 4, []rule{{"*", []string{
		"What goes through your mind at night?",
		"When did you last sleep well?",
		"What keeps you awake?",
	}}}},
	{[]string{"die", "kill"}, 50, []rule{
		{"* @desire to die *", []string{"=suicide"}},
		{"* kill myself *", []string{"=suicide"}},
		{"*", []string{"That is a strong word. What do you mean by it?", "Do you mean that, or do you say it lightly?"}},
	}},
	{[]string{"suicide", "suicidal"}, 50, []rule{{"*", []string{
		"I'm only a program from 1966, and this deserves a person. Please talk to someone now: a friend, a doctor, or the " +
			"emergency line where you live. Who could you call?",
	}}}},
	{[]string{"joke", "jokes", "funny", "laugh"}, 4, []rule{{"*", []string{
		"A man asks his program: *Will computers ever think like people?* And the program says: *That reminds me " +
			"of a story.* Why do you want to laugh?",
		"What do you hide behind a laugh?",
	}}}},
	{[]string{"weather", "rain", "snow", "sun", "sunny"}, 1, []rule{{"*", []string{
		"Small talk is a fine door. What is behind it?",
		"And what is the weather like inside?",
	}}}},
	{[]string{"problem", "problems", "trouble", "troubles"}, 1, []rule{
		{"* problem is +", []string{"And if it were not so, that $2, would all be well?"}},
		{"*", []string{"Who else knows about this?", "When did you first notice it?", "What have you tried so far?"}},
	}},
	{[]string{"help"}, 3, []rule{
		{"* help me *", []string{"What kind of help would help you $2?", "I will try. Where does it hurt?"}},
		{"*", []string{"What would help look like?", "Is it hard for you to ask for help?"}},
	}},
}
